# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The style and the script of the page: CSS for light and dark, JavaScript that never interprets text as markup."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #5b6470; --line: #d8dde3; --page: #ffffff; --card: #f6f8fa;
  --link: #0b57b0; --gold: #8a5a00; --good: 31, 111, 235; --bad: 214, 93, 14; --heat: 31, 111, 235; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ed; --soft: #9aa4af; --line: #363d46; --page: #14171b;
  --card: #1d2127; --link: #7ab3ff; --gold: #e3b55b; --good: 88, 151, 255; --bad: 240, 136, 62;
  --heat: 88, 151, 255; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem clamp(.7rem, 3vw, 2.5rem) 4rem; max-width: 1500px; background: var(--page);
  color: var(--text); font: 15px/1.5 system-ui, "Segoe UI", "Noto Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: .3rem 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; padding-top: .6rem;
  border-top: 1px solid var(--line); } h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p, li { max-width: 75ch; } .soft, small, figcaption { color: var(--soft); }
small { font-size: .78em; font-weight: 400; }
a { color: var(--link); } nav a { margin-right: 1rem; } code { font-size: .85em; }
.said li { margin: .25rem 0; } .warn { border-left: 4px solid rgb(var(--bad)); padding: .1rem .8rem; }
.scroll { overflow-x: auto; margin: .4rem 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; border: 1px solid var(--line); text-align: right; vertical-align: top;
  white-space: nowrap; overflow-wrap: normal; }
th { font-weight: 600; background: var(--card); } th[scope=row] { text-align: left; position: sticky; left: 0; }
th[scope=row].long { white-space: normal; min-width: 10rem; max-width: 22rem; }
td small, td .b { display: block; line-height: 1.25; } .b { font-size: .68em; letter-spacing: .06em;
  color: var(--soft); font-weight: 400; }
td[class^=h] small, td[class^=h] .b, td[class^=up] *, td[class^=down] * { color: var(--text); }
.left { text-align: left; }
.pair, .maps { display: flex; flex-wrap: wrap; gap: 0 1.6rem; }
.pair > div, .maps > div { min-width: 0; max-width: 100%; }
tr:first-child > th:first-child { text-align: left; } th small { font-weight: 400; }
h4 { margin: .5rem 0 .2rem; } .map td, .map th { padding: .18rem .3rem; text-align: center; font-size: .86rem; }
.map td { min-width: 3.3rem; } .map small { font-size: .66rem; } .map .m { background: var(--card); }
.map th[scope=row] { text-align: center; }
.h1 { background: rgba(var(--heat), .05); } .h2 { background: rgba(var(--heat), .10); }
.h3 { background: rgba(var(--heat), .15); } .h4 { background: rgba(var(--heat), .20); }
.h5 { background: rgba(var(--heat), .25); } .h6 { background: rgba(var(--heat), .30); }
.h7 { background: rgba(var(--heat), .36); } .h8 { background: rgba(var(--heat), .42); }
.h9 { background: rgba(var(--heat), .48); } .h10 { background: rgba(var(--heat), .54); }
.up1 { background: rgba(var(--good), .15); } .up2 { background: rgba(var(--good), .30); }
.up3 { background: rgba(var(--good), .45); } .down1 { background: rgba(var(--bad), .18); }
.down2 { background: rgba(var(--bad), .33); } .down3 { background: rgba(var(--bad), .48); }
.up1, .up2, .up3, .down1, .down2, .down3 { font-weight: 600; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr)); gap: .6rem 1.2rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 1rem; }
figure { margin: 0; min-width: 0; } svg { width: 100%; height: auto; display: block; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0 .9rem; margin: 0; padding: 0; font-size: .8rem; }
.legend li::before { content: ""; display: inline-block; width: .8em; height: .22em; margin-right: .35em;
  vertical-align: middle; background: var(--c); }
.line { fill: none; stroke: var(--c); stroke-width: 1.7; } .dot { fill: var(--c); } .axis { stroke: var(--soft); }
.tick { stroke: var(--line); } .frame { fill: none; stroke: var(--line); }
.link { stroke: var(--soft); opacity: .25; stroke-width: .7; }
svg text { fill: var(--soft); font-size: 10px; } .yl { text-anchor: end; } .xl.end { text-anchor: end; }
.s0 { --c: #1f6feb; } .s1 { --c: #d65d0e; } .s2 { --c: #2c9a4b; } .s3 { --c: #b0419f; } .s4 { --c: #c49000; }
.s5 { --c: #1b9aaa; } .s6 { --c: #d13c4b; } .s7 { --c: #7a5cd6; } .s8 { --c: #7d8590; } .s9 { --c: #8b5a2b; }
@media (max-width: 600px) { th[scope=row].long { min-width: 6.5rem; max-width: 8.5rem; font-size: .84rem; } }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--link); }
.ask { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin: .6rem 0; }
.ask label { display: flex; flex-direction: column; font-size: .8rem; color: var(--soft); min-width: 0; }
select, button { font: inherit; color: var(--text); background: var(--card); border: 1px solid var(--line);
  border-radius: 5px; padding: .25rem .5rem; max-width: 100%; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .6rem .9rem;
  margin: .7rem 0; } .card p { margin: .35rem 0; max-width: none; } .card .ask-text { font-weight: 600; }
.card .text { line-height: 1.9; } .card table { font-size: .86rem; } .card .left { white-space: normal; }
.gold { border-bottom: 3px solid var(--gold); } .was { outline: 1.5px dashed rgb(var(--bad)); outline-offset: 1px;
  border-radius: 2px; } .now { background: rgba(var(--good), .28); border-radius: 2px; }
.up::after { content: " ▲"; color: rgb(var(--good)); } .down::after { content: " ▼"; color: rgb(var(--bad)); }
"""

SCRIPT = """
"use strict";
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
  const held = () => sets[Number(set.value)];
  const languages = i => {
    const found = [...new Set(held().rows.map(r => r.l[i]))].sort();
    return [["", "all"], ...found.map(l => [l, l])];
  };
  function start() {
    const s = held(), names = s.systems.map((name, i) => [i, name]);
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
    const whole = held().task === "qa" ? 1 : 0;
    const right = x => x[whole] >= 100;
    if (kind.value === "fixed") return right(a) && !right(b);
    if (kind.value === "broken") return right(b) && !right(a);
    return kind.value === "up" ? a[0] > b[0] : a[0] < b[0];
  }
  function render() {
    const s = held(), rows = s.rows.filter(wanted), left = s.left;
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
    const card = make("div", "card"), names = held().systems, lang = row.l[0];
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
