# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The script of the page: details of cells, keys, and the explorer; it never interprets text as markup."""

from __future__ import annotations

SCRIPT = """
"use strict";
(function () {
  const tip = document.getElementById("tip");
  const cellOf = event => event.target.closest ? event.target.closest(".heat td[aria-label]") : null;
  function show(cell) {
    tip.hidden = !cell;
    if (!cell) return;
    tip.textContent = cell.getAttribute("aria-label");
    const box = cell.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const below = box.bottom + 6 + own.height < innerHeight;
    tip.style.top = (below ? box.bottom + 6 : Math.max(4, box.top - own.height - 6)) + "px";
    tip.style.left = Math.max(4, Math.min(box.left, innerWidth - own.width - 8)) + "px";
  }
  for (const name of ["mouseover", "focusin"]) document.addEventListener(name, event => show(cellOf(event)));
  document.addEventListener("focusout", () => show(null));
  document.addEventListener("scroll", () => show(null), true);
  const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  document.addEventListener("keydown", event => {
    if (event.key === "Escape") show(null);
    const cell = cellOf(event);
    if (!cell) return;
    const row = cell.parentNode, rows = row.parentNode.rows;
    let next = null;
    if (event.key === "Home") next = row.cells[1];
    else if (event.key === "End") next = row.cells[row.cells.length - 1];
    else if (STEPS[event.key]) {
      const [down, right] = STEPS[event.key];
      let place = row.rowIndex + down;
      while (rows[place] && rows[place].cells.length === 1) place += down;
      next = rows[place] && rows[place].cells[cell.cellIndex + right];
    } else return;
    event.preventDefault();
    if (next && next.hasAttribute("aria-label")) {
      cell.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    }
  });
  function unfold() {
    const target = document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") target.open = true;
  }
  addEventListener("hashchange", unfold);
  unfold();
})();
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.getElementById("explorer"), rtl = new Set(data.rtl), PAGE = 12;
  const sets = data.sets.filter(s => s.rows.length);
  if (!sets.length) return;
  const make = (tag, cls, text, lang) => {
    const node = document.createElement(tag);
    if (cls) node.className = cls;
    if (text !== undefined && text !== null) node.textContent = text;
    if (lang !== undefined) { node.lang = lang; node.dir = rtl.has(lang) ? "rtl" : "auto"; }
    return node;
  };
  const ask = root.appendChild(make("div", "ask")), count = root.appendChild(make("p", "soft"));
  const list = root.appendChild(make("div")), more = root.appendChild(make("button", "", "more"));
  more.type = "button";
  const choose = (label, onchange) => {
    const box = ask.appendChild(make("label", "", label)), select = box.appendChild(make("select"));
    select.addEventListener("change", onchange);
    return select;
  };
  const fill = (select, options, chosen) => {
    select.replaceChildren(...options.map(([value, text]) => {
      const one = make("option", "", text);
      one.value = value;
      return one;
    }));
    if (chosen !== undefined) select.value = chosen;
  };
  let shown = PAGE;
  const set = choose("data set", () => start());
  const now = choose("system", () => again()), was = choose("baseline", () => again());
  const kind = choose("show", () => again());
  const first = choose("question language", () => again()), second = choose("context language", () => again());
  more.addEventListener("click", () => { shown += PAGE; render(); });
  const shownSet = () => sets[Number(set.value)];
  const languages = i => {
    const tags = [...new Set(shownSet().rows.map(r => r.l[i]))].sort();
    return [["", "all"], ...tags.map(l => [l, l])];
  };
  function start() {
    const s = shownSet(), names = s.systems.map((name, i) => [i, name]);
    fill(now, names, s.first[0]);
    fill(was, names, s.first[1]);
    fill(kind, [["all", "all questions"], ["fixed", "fixed since baseline"], ["broken", "broken since baseline"],
      ["up", "higher score than baseline"], ["down", "lower score than baseline"]]);
    fill(first, languages(0));
    first.parentNode.firstChild.textContent = s.task === "qa" ? "question language" : "language";
    second.parentNode.hidden = s.task !== "qa";
    fill(second, s.task === "qa" ? languages(1) : [["", "all"]]);
    again();
  }
  function again() { shown = PAGE; render(); }
  function wanted(row) {
    if (first.value && row.l[0] !== first.value || second.value && row.l[1] !== second.value) return false;
    if (kind.value === "all") return true;
    const a = row.a[Number(now.value)], b = row.a[Number(was.value)];
    if (!a || !b) return false;
    const whole = shownSet().task === "qa" ? 1 : 0;
    const right = x => x[whole] >= 100;
    if (kind.value === "fixed") return right(a) && !right(b);
    if (kind.value === "broken") return right(b) && !right(a);
    return kind.value === "up" ? a[0] > b[0] : a[0] < b[0];
  }
  function render() {
    const s = shownSet(), rows = s.rows.filter(wanted), left = s.left;
    count.textContent = rows.length + " of " + left.shown + " questions; the page contains " + left.shown + " of " +
      left.sampled + " sampled, the set has " + left.all + ".";
    list.replaceChildren(...rows.slice(0, shown).map(row => s.task === "qa" ? question(s, row) : labelled(row)));
    more.hidden = rows.length <= shown;
  }
  // Offsets in the data count code points; a JavaScript string counts UTF-16 units.
  function marked(text, spans, lang) {
    const node = make("p", "text", undefined, lang), chars = Array.from(text);
    const cuts = [...new Set([0, chars.length, ...spans.flatMap(x => [x[0], x[1]])])]
      .filter(x => x >= 0 && x <= chars.length).sort((x, y) => x - y);
    cuts.slice(0, -1).forEach((from, i) => {
      const names = [...new Set(spans.filter(x => x[0] <= from && from < x[1]).map(x => x[2]))];
      node.appendChild(names.length ? make("span", names.join(" ")) : document.createTextNode("")).textContent =
        chars.slice(from, cuts[i + 1]).join("");
    });
    return node;
  }
  function question(s, row) {
    const card = make("div", "card"), a = row.a[Number(now.value)], b = row.a[Number(was.value)];
    card.appendChild(make("small", "", row.i + " · question " + row.l[0] + ", context " + row.l[1]));
    card.appendChild(make("p", "ask-text", row.q, row.l[0]));
    const spans = row.g.map(g => [g[0], g[0] + Array.from(g[1]).length, "gold"]);
    if (b && b[3] !== null) spans.push([b[3], b[4], "was"]);
    if (a && a[3] !== null) spans.push([a[3], a[4], "now"]);
    card.appendChild(marked(s.contexts[row.c], spans, row.l[1]));
    const lines = [["gold", row.g.map(g => g[1]).join(" · "), "", "gold"]];
    const score = x => "F1 " + x[0] + ", EM " + x[1];
    if (b) lines.push([s.systems[Number(was.value)], b[2], score(b), "was"]);
    if (a) lines.push([s.systems[Number(now.value)], a[2], score(a), "now"]);
    return answers(card, lines, row.l[1]);
  }
  function labelled(row) {
    const card = make("div", "card"), names = shownSet().systems, lang = row.l[0];
    card.appendChild(make("small", "", row.i + " · " + lang));
    card.appendChild(make("p", "text", row.t, lang));
    if (row.s !== null && row.s !== undefined) card.appendChild(make("p", "text", row.s, lang));
    const lines = [["gold", row.g === null ? "–" : row.g, "", "gold"]];
    [[was, "was"], [now, "now"]].forEach(([select, cls]) => {
      const x = row.a[Number(select.value)];
      if (x) lines.push([names[Number(select.value)], x[1], x[0] === null ? "" : x[0] >= 100 ? "right" : "wrong", cls]);
    });
    return answers(card, lines, "en");
  }
  function answers(card, lines, lang) {
    const table = make("table");
    lines.forEach(([name, text, score, cls]) => {
      const row = table.appendChild(make("tr"));
      row.appendChild(make("td", "left")).appendChild(make("span", cls, name));
      row.appendChild(make("td", "left")).appendChild(make("span", "", text || "–", lang));
      row.appendChild(make("td", "", score));
    });
    const box = card.appendChild(make("div", "scroll"));
    box.appendChild(table);
    return card;
  }
  fill(set, sets.map((s, i) => [i, s.name]));
  start();
})();
"""
