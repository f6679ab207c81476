# Copyright 2026 The xlkd Authors.
# SPDX-License-Identifier: Apache-2.0
"""The style of the page: CSS for light and dark, narrow and wide windows, and paper."""

from __future__ import annotations

from xlkd.reports import scales

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --soft: #57606b; --line: #d8dde3; --page: #ffffff; --card: #f6f8fa;
  --link: #0b57b0; --gold: #8a5a00; --good: 31, 104, 188; --bad: 176, 88, 6; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ed; --soft: #9aa4af; --line: #363d46; --page: #14171b;
  --card: #1d2127; --link: #7ab3ff; --gold: #e3b55b; --good: 111, 182, 254; --bad: 247, 150, 67; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: .5rem clamp(.7rem, 2.5vw, 2rem) 4rem; max-width: 1800px; background: var(--page);
  color: var(--text); font: 15px/1.5 system-ui, "Segoe UI", "Noto Sans", sans-serif; overflow-wrap: anywhere; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 1.2rem; }
h1 { font-size: 1.15rem; margin: .1rem 0; } h2 { font-size: 1.15rem; margin: 0; }
h3 { font-size: .95rem; margin: 1.2rem 0 .35rem; } h4 { margin: .5rem 0 .2rem; }
main > section { margin: 0 0 1.8rem; border-top: 1px solid var(--line); padding-top: .3rem; }
.overview > h2, .overview > .what { display: inline; }
p, li { max-width: 75ch; } .soft, small, figcaption { color: var(--soft); }
small { font-size: .78em; font-weight: 400; }
a { color: var(--link); } nav { flex-basis: 100%; font-size: .82rem; margin: 0 0 .4rem; }
nav a { margin-right: .9rem; white-space: nowrap; }
code { font-size: .85em; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 1px; }
.runs, .facts { margin: 0; max-width: none; font-size: .85rem; color: var(--soft); }
.runs ul { padding-left: 1.1rem; margin: .2rem 0; }
.said li { margin: .25rem 0; } .warn { border-left: 4px solid rgb(var(--bad)); padding: 0 .8rem; margin: .4rem 0;
  font-size: .84rem; }
.scroll { overflow-x: auto; margin: .4rem 0 1rem; max-width: 100%; }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; border: solid var(--line); border-width: 0 1px 1px 0; text-align: right;
  vertical-align: top; white-space: nowrap; overflow-wrap: normal; }
tr:first-child > * { border-top-width: 1px; } tr > :first-child { border-left-width: 1px; }
th { font-weight: 600; background: var(--card); }
.scroll tr > th:first-child { text-align: left; position: sticky; left: 0; z-index: 1; }
th[scope=row].long { white-space: normal; min-width: 10rem; max-width: 22rem; }
td small, td .b { display: block; line-height: 1.25; } .b { font-size: .68em; letter-spacing: .06em;
  color: var(--soft); font-weight: 400; }
td[class^=h] small, td[class^=h] .b, td[class^=up] *, td[class^=down] * { color: var(--text); }
.left { text-align: left; }
.pair, .maps { display: flex; flex-wrap: wrap; gap: 0 1.6rem; }
.pair > div, .maps > div { min-width: 0; max-width: 100%; }
.map td, .map th { padding: .18rem .3rem; text-align: center; font-size: .86rem; }
.map td { min-width: 3.3rem; } .map small { font-size: .66rem; } .map .m { background: var(--card); }
.h1 { background: rgba(var(--good), .05); } .h2 { background: rgba(var(--good), .10); }
.h3 { background: rgba(var(--good), .15); } .h4 { background: rgba(var(--good), .20); }
.h5 { background: rgba(var(--good), .25); } .h6 { background: rgba(var(--good), .30); }
.h7 { background: rgba(var(--good), .36); } .h8 { background: rgba(var(--good), .42); }
.h9 { background: rgba(var(--good), .48); } .h10 { background: rgba(var(--good), .54); }
.up1 { background: rgba(var(--good), .15); } .up2 { background: rgba(var(--good), .30); }
.up3 { background: rgba(var(--good), .45); } .down1 { background: rgba(var(--bad), .18); }
.down2 { background: rgba(var(--bad), .33); } .down3 { background: rgba(var(--bad), .48); }
.up1, .up2, .up3, .down1, .down2, .down3 { font-weight: 600; }
.what { margin: 0 0 0 .5rem; max-width: none; font-size: .82rem; line-height: 1.35; }
.top { display: flex; flex-wrap: wrap; gap: 0 1.5rem; } .top h3 { margin: .5rem 0 .25rem; }
.differences { flex: 1 1 560px; min-width: 0; } .averages { flex: 0 1 auto; min-width: 0; max-width: 100%; }
.forest { list-style: none; margin: 0; padding: 0; font-size: .8rem; line-height: 1.3; }
.forest li { display: grid; grid-template-columns: minmax(0, 1fr) minmax(140px, 25%); gap: .5rem; max-width: none;
  --c: var(--soft); }
.forest li.better { --c: rgb(var(--good)); } .forest li.worse { --c: rgb(var(--bad)); }
.forest li > span { padding: .16rem 0; } .forest em { font-style: normal; color: var(--soft);
  white-space: nowrap; }
.better em, .worse em { color: var(--c); font-weight: 600; } .better em::before { content: "▲ "; content: "▲ " / ""; }
.worse em::before { content: "▼ "; content: "▼ " / ""; }
.forest svg { height: 0; min-height: 100%; overflow: visible; } .forest .axis svg { height: 15px; }
.forest text { text-anchor: middle; fill: var(--soft); } .forest .zero { stroke: var(--text); }
.interval { stroke: var(--c); stroke-width: 2; } .point { fill: var(--c); stroke: var(--c); stroke-width: 1.5; }
.spread { stroke: var(--soft); stroke-width: 1; opacity: .7; }
.forest .group { display: block; font-weight: 600; color: var(--soft); padding-top: .1rem; }
.unsure .point { fill: var(--page); } .seed { fill: var(--soft); opacity: .7; }
.differences > p { margin: .1rem 0; font-size: .76rem; max-width: none; }
.averages table { font-size: .8rem; } .averages td, .averages th { padding: .12rem .35rem; line-height: 1.3; }
.averages tr:first-child th { white-space: normal; max-width: 8rem; vertical-align: bottom; }
.averages td small, .averages td .b { display: inline; font-size: .9em; }
.averages td .b { letter-spacing: 0; margin-left: .3em; } .averages details { font-size: .8rem; margin: .3rem 0; }
.averages .scroll { margin: 0; } .averages p { margin: .1rem 0; font-size: .76rem; }
.legends { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 1rem; margin: .3rem 0 .3rem; }
.legends h3 { margin: 0; } .scale { display: inline-flex; flex-wrap: wrap; align-items: center; gap: .1rem;
  font-size: .72rem; color: var(--soft); } .scale span:first-child { margin-right: .4em; }
.scale i { width: 1rem; height: .7rem; } .legends .sure, .legends .away { padding: 0 .3em; }
.legends > span { font-size: .72rem; color: var(--soft); }
.squares { display: grid; gap: 8px 12px; padding-right: 4px;
  --columns: 1; --share: calc((100% + 12px) / var(--columns) - 12px);
  grid-template-columns: repeat(auto-fill, minmax(max(150px, var(--share)), 1fr)); }
.squares > div { container-type: inline-size; max-width: 320px; } .squares .start { grid-column-start: 1; }
.squares .heat { table-layout: fixed; width: 100%; font-size: clamp(6.2px, 4.2cqw, 12px); }
.squares .heat th { overflow: visible; font-size: .92em; }
.squares .heat th:first-child { width: 3.6em; text-align: right; padding-right: .3em; }
.squares .heat tr:first-child th:first-child { font-size: .75em; }
.strips .scroll { margin: 0; } .strips .heat { font-size: .8rem; } .strips .heat td { min-width: 2.5rem; }
.strips .heat td, .strips .heat th { padding: .15rem .4rem; } .strips .heat th { background: var(--page); }
.strips .heat th:first-child { text-align: left; padding-left: 0; } .strips .heat .group { font-weight: 600; }
.heat caption { font-size: 12px; line-height: 1.25; text-align: left; padding: 0 0 1px; font-weight: 600; }
.heat th, .heat td { padding: .22em 0; line-height: 1.3; text-align: center; vertical-align: middle; overflow: hidden;
  border: 1px solid var(--page); }
.heat th { background: none; font-weight: 400; color: var(--soft); }
.heat td.m:last-child { border-left-width: 2px; } .heat tr:last-child td.m { border-top-width: 3px; }
.squares .heat td { letter-spacing: -.03em; }
.sure { box-shadow: inset 0 0 0 1.5px var(--text); } .away { outline: 1px dashed currentcolor; outline-offset: -2px; }
.heat .none { color: var(--soft); }
.heat td:focus { outline: 2px solid var(--link); outline-offset: 0; }
#tip { position: fixed; z-index: 9; max-width: min(21rem, 92vw); padding: .35rem .6rem; border-radius: 6px;
  background: var(--text); color: var(--page); font-size: .8rem; line-height: 1.4; pointer-events: none; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr)); gap: .6rem 1.2rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 1rem; }
figure { margin: 0; min-width: 0; max-width: 420px; } svg { width: 100%; height: auto; display: block; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0 .9rem; margin: 0; padding: 0; font-size: .8rem; }
.legend li::before { content: ""; display: inline-block; width: .8em; height: .22em; margin-right: .35em;
  vertical-align: middle; background: var(--c); }
.line { fill: none; stroke: var(--c); stroke-width: 1.7; } .dot { fill: var(--c); } .axis { stroke: var(--soft); }
.tick { stroke: var(--line); } .frame { fill: none; stroke: var(--line); }
.link { stroke: var(--soft); opacity: .25; stroke-width: .7; }
svg text { fill: var(--soft); font-size: 10px; stroke: none; } .yl { text-anchor: end; } .xl.end { text-anchor: end; }
.s0 { --c: #1f6feb; } .s1 { --c: #d65d0e; } .s2 { --c: #2c9a4b; } .s3 { --c: #b0419f; } .s4 { --c: #c49000; }
.s5 { --c: #1b9aaa; } .s6 { --c: #d13c4b; } .s7 { --c: #7a5cd6; } .s8 { --c: #7d8590; } .s9 { --c: #8b5a2b; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--link); }
.fold { border-top: 1px solid var(--line); margin: 0; padding: .5rem 0; } .fold > summary h2 { display: inline; }
.ask { display: flex; flex-wrap: wrap; gap: .5rem 1rem; margin: .6rem 0; }
.ask label { display: flex; flex-direction: column; font-size: .8rem; color: var(--soft); min-width: 0; }
select, button { font: inherit; color: var(--text); background: var(--card); border: 1px solid var(--line);
  border-radius: 5px; padding: .25rem .5rem; max-width: 100%; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .6rem .9rem;
  margin: .7rem 0; } .card p { margin: .35rem 0; max-width: none; } .card .ask-text { font-weight: 600; }
.card [lang] { overflow-wrap: break-word; line-break: strict; }
.card .text { line-height: 1.9; } .card table { font-size: .86rem; } .card .left { white-space: normal; }
.gold { border-bottom: 3px solid var(--gold); } .was { outline: 1.5px dashed rgb(var(--bad)); outline-offset: 1px;
  border-radius: 2px; } .now { background: rgba(var(--good), .28); border-radius: 2px; }
@media (max-width: 700px) { th[scope=row].long { min-width: 6.5rem; max-width: 8.5rem; font-size: .84rem; }
  .forest li { grid-template-columns: minmax(0, 1fr); gap: 0; margin-bottom: .35rem; }
  .forest svg { min-height: 18px; height: 18px; }
  .forest .axis > span { display: none; } .averages tr:first-child th { max-width: 6.5rem; } }
@media print { @page { size: A4; margin: 11mm; } body { padding: 0; max-width: none; font-size: 12px; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } nav, .ask, #questions button { display: none; }
  .scroll { overflow: visible; } .scroll table { font-size: 8px; }
  .averages .scroll table, .strips .scroll .heat { font-size: 10px; }
  .scroll th, .scroll td, .strips .heat th, .strips .heat td { padding: .1rem .1rem; min-width: 0;
    white-space: normal; } th[scope=row].long { min-width: 4rem; max-width: 8rem; }
  .squares > div, figure, .card, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } }
"""
STYLE = _STYLE + "".join(f".c{n} {{ --columns: {n}; }}\n" for n in range(2, 9)) + scales.write_rules()
