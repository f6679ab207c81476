# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""Sends a model to the Hugging Face hub: `python -m xlkd.push DIR --repo=OWNER/NAME [--public] [--yes]`.

  DIR                an export: WORKDIR/stages/NN-NAME/export, one of the folders in it, or what trim wrote
  --repo=OWNER/NAME  the model on the hub: a new one, or one that this command sent before
  --public           everybody can see it; without this flag it is private
  --yes              send without asking, as needed where no terminal can be asked
  --revision=BRANCH  a branch other than main; it is created where the model does not have it
  --message=TEXT     the message of the commit

Sent are the files that the export wrote (weights, tokenizer, model card, xlkd.json) and the list of them: never
checkpoints, nor anything else in the folder. They are listed with their sizes before anything is sent, and arrive in
one commit, which also deletes the files of an earlier export that this one does not have. Log in first: hf auth login.

Examples:
  python -m xlkd.push runs/NAME/stages/02-ce/export --repo=OWNER/NAME
  python -m xlkd.push smaller --repo=OWNER/NAME --public --yes --message="Six layers"
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from xlkd import cli, files, hub
from xlkd.errors import UserError, escape_controls

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
FRESH = frozenset({".gitattributes", "README.md"})  # the files of a model that was just created on the hub's page
MESSAGE = "Model exported by xlkd"


def main(arguments: list[str]) -> None:
    """Lists what would be sent, asks, and sends it."""
    flags, others = cli.split_flags(arguments, ("repo", "revision", "message"), ("public", "yes"))
    if unknown := [text for text in others if text.startswith("-")]:
        raise UserError(f"unknown flag {unknown[0]!r}", "command line", "--help lists the flags")
    if len(others) != 1:
        raise UserError("no single folder given", "command line", "for example runs/NAME/stages/01-english/export")
    if not REPOSITORY.fullmatch(name := flags.get("repo", "")):
        raise UserError("no --repo=OWNER/NAME given", "command line", "name the model as it will be called on the hub")
    plan = plan_upload(others[0], hub.Repository(name, flags.get("revision")), flags)
    cli.print_lines(describe_upload(plan))
    if "yes" not in flags:
        confirm()
    address = hub.upload(plan)
    is_same = plan.remote is not None and address.endswith(plan.remote.commit)
    print(escape_controls(f"{'unchanged' if is_same else 'sent'}: {address}"))


def plan_upload(name: str, repository: hub.Repository, flags: dict[str, str]) -> hub.Upload:
    """Returns what an upload would send and delete; refuses a model whose visibility or files it would not respect."""
    folder, private = files.expand_path(name), "public" not in flags
    names = files.list_export(folder)
    remote = hub.find_remote(repository)
    deleted: tuple[str, ...] = ()
    if remote:
        old = remote.exported or frozenset()
        foreign = remote.files - old - FRESH - {files.MARKER}
        foreign = foreign if remote.exported is None else foreign.intersection(names)
        if foreign:
            what = f"contains {files.name_some(sorted(foreign))}, which no export wrote"
            raise UserError(what, repository.name, "give another name")
        deleted = tuple(sorted((old & remote.files).difference(names)))
    if remote and remote.private != private:
        state, remedy = ("private", "leave out --public") if remote.private else ("public", "add --public")
        what = f"is {state} on the hub, which an upload does not change"
        raise UserError(what, repository.name, f"{remedy}, change it on {hub.make_page_url(repository)}/settings first")
    return hub.Upload(repository, folder, tuple(names), deleted, private, flags.get("message", MESSAGE), remote)


def describe_upload(plan: hub.Upload) -> Iterator[str]:
    """Yields the lines that say what would be sent where."""
    kind = "private" if plan.private else "public"
    state = "a new" if plan.remote is None else "an existing"
    branch = f", branch {plan.repository.revision}" if plan.repository.revision else ""
    yield escape_controls(f"to {hub.make_page_url(plan.repository)}{branch}, {state} {kind} model:")
    sizes = {name: (plan.folder / name).stat().st_size for name in plan.names}
    for name, size in sizes.items():
        yield escape_controls(f"  {cli.format_size(size):>9}  {name}")
    for name in plan.deleted:
        yield escape_controls(f"    deletes  {name}")
    yield f"{len(sizes)} files, {cli.format_size(sum(sizes.values()))}"


def confirm() -> None:
    """Asks on the terminal; without one, or without a yes, nothing is sent."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        raise UserError("not confirmed, and no terminal to ask on", "", "add --yes to send this")
    print("send this? [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError("not confirmed", "", "nothing was sent")


if __name__ == "__main__":
    sys.exit(cli.run(main))
