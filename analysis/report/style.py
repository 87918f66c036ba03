"""The style of the page: one column, a table that scrolls by itself, nothing that only colour tells."""

STYLE = """
:root { color-scheme: light; --ink: #1a1a1a; --muted: #5a5a5a; --rule: #d4d4d4; --accent: #0b5cad; --cell: 2.5rem; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.25rem; font: 1rem/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: var(--ink); background: #fff; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--rule); }
p, li, figcaption { max-width: 46rem; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; font-size: .9rem; }
a { color: var(--accent); }
:focus-visible { outline: 3px solid #d55e00; outline-offset: 1px; }
.scroll { overflow-x: auto; max-width: 100%; padding: 3px; }
dl.figures { display: flex; flex-wrap: wrap; gap: .6rem 2rem; margin: .6rem 0 1rem; }
dl.figures dt { font-size: .85rem; color: var(--muted); }
dl.figures dd { margin: 0; font-size: 1.5rem; font-weight: 650; font-variant-numeric: tabular-nums; }
dl.pairs { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .25rem 1.2rem; }
dl.pairs dt { color: var(--muted); } dl.pairs dd { margin: 0; overflow-wrap: anywhere; }
pre { background: #f5f5f3; padding: .8rem; border-radius: 4px; font-size: .88rem; white-space: pre-wrap; overflow-wrap: anywhere; }
pre code { display: block; padding-left: 2ch; text-indent: -2ch; } pre code + code { margin-top: .35rem; }
figure { margin: 1.2rem 0 2rem; } figure img { max-width: 100%; height: auto; display: block; }
summary { cursor: pointer; padding: .35rem 0; } details > .scroll, details > p { margin-bottom: 1rem; }
figcaption { font-size: .9rem; color: var(--muted); margin-top: .3rem; } figcaption b { color: var(--ink); }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; }
table.plain { font-size: .9rem; } table.plain th, table.plain td { padding: .3rem .7rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: middle; }
table.plain th:first-child { text-align: left; position: sticky; left: 0; background: #fff; } table.plain thead th { font-weight: 500; color: var(--muted); vertical-align: bottom; }
table.stack td { white-space: nowrap; } table.stack td.note, table.stack th { white-space: normal; } table.stack td.note { text-align: left; min-width: 14rem; } table.stack th:first-child { min-width: 9rem; }
.hint { display: none; font-size: .85rem; color: var(--muted); margin: .2rem 0; } h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
.reference th, .reference td { font-style: italic; }
svg .axis { stroke: #b5b5b5; } svg .span { stroke: #0072b2; stroke-width: 3; } svg circle { fill: #0072b2; }
#controls { display: flex; flex-wrap: wrap; gap: .6rem 1.2rem; align-items: end; margin: .6rem 0; font-size: .9rem; }
#controls[hidden] { display: none; }
#controls label, #controls select { max-width: 100%; }
#controls select, #controls input, #controls button { font: inherit; padding: .25rem .4rem; min-height: 2.1rem; border: 1px solid #8a8a8a; border-radius: 4px; background: #fff; color: inherit; }
#controls fieldset { border: 0; padding: 0; margin: 0; display: flex; flex-wrap: wrap; gap: .2rem .9rem; align-items: center; min-height: 2.1rem; }
#controls legend { float: left; padding: 0; margin-right: .6rem; }
#controls input[type=checkbox] { min-height: 0; vertical-align: -1px; }
#matrix { font-size: .82rem; }
#matrix td { min-width: var(--cell); height: calc(var(--cell) * .8); text-align: center; border: 1px solid #fff; padding: 0 .15rem; }
#matrix td.none { background: repeating-linear-gradient(45deg, #f2f2f2 0 4px, #dcdcdc 4px 5px); color: var(--muted); }
#matrix td.own { font-weight: 700; }
#matrix thead th, #matrix thead td { vertical-align: bottom; border: 0; padding: .15rem; font-weight: 400; }
#matrix thead th span, #matrix thead button { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 11rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
#matrix tbody th { position: sticky; left: 0; background: #fff; text-align: right; font-weight: 400; padding: 0 .5rem 0 0; max-width: 13rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; z-index: 1; }
#matrix button { font: inherit; color: inherit; background: none; border: 0; padding: .1rem .2rem; cursor: pointer; border-radius: 3px; }
#matrix button:hover { text-decoration: underline; }
#matrix tbody button { max-width: 11.2rem; overflow: hidden; text-overflow: ellipsis; vertical-align: middle; }
#matrix tr.first-of-type > * { border-top: 3px solid #fff; } #matrix tr.first-reference > * { border-top: .9rem solid #fff; }
#matrix .first-of-type-column { border-left: 3px solid #fff; }
#matrix i.chip { display: inline-block; width: .7em; height: .7em; margin: 0 .35em; vertical-align: -1px; font-style: normal; }
#matrix thead i.chip { display: block; margin: .3em auto; }
#matrix thead th { text-align: center; }
#detail { min-height: 3.2em; margin: .5rem 0 0; font-size: .92rem; } #detail[hidden] { display: none; }
#tip { position: fixed; z-index: 5; pointer-events: none; background: #fff; border: 1px solid #777; border-radius: 4px; padding: .4rem .6rem; font-size: .85rem; line-height: 1.4; max-width: 20rem; box-shadow: 0 2px 8px #0003; white-space: pre-line; }
#tip[hidden] { display: none; }
.many { --cell: 1.7rem; } .many #matrix { font-size: .62rem; } .many #matrix td { padding: 0; }
@media (max-width: 40rem) { body { padding: .8rem; } :root { --cell: 2.2rem; } #matrix tbody th { max-width: 9.5rem; } #matrix tbody button { max-width: 7.8rem; white-space: normal; overflow-wrap: break-word; text-align: right; } table.plain th:first-child { min-width: 7rem; max-width: 9rem; overflow-wrap: break-word; }
  .wide img { max-width: none; width: 40rem; } dl.pairs { grid-template-columns: 1fr; } dl.pairs dd { margin-bottom: .4rem; } .hint { display: block; }
  table.stack, table.stack tbody, table.stack tr, table.stack th, table.stack td { display: block; } table.stack thead { display: none; }
  table.stack tr { border-bottom: 1px solid var(--rule); padding: .5rem 0; } table.stack th:first-child { position: static; max-width: none; border: 0; padding: 0 0 .2rem; font-weight: 600; }
  table.stack td, table.stack td.note { display: grid; grid-template-columns: 9rem 1fr; gap: .6rem; border: 0; padding: .1rem 0; min-width: 0; text-align: left; white-space: normal; overflow-wrap: anywhere; } table.stack td::before { content: attr(data-name); color: var(--muted); } table.stack td.empty { display: none; } }
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  html { font-size: 9.5pt; } body { max-width: none; padding: 0; } nav, .hint, #controls, #detail, #tip, .needs-script { display: none !important; }
  .scroll { overflow: visible; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  #matrix { font-size: 6.5pt; --cell: 1.9rem; } .many #matrix { font-size: 4pt; --cell: .9rem; } #matrix tbody th { position: static; }
  figure, tr, dl.figures, #frame, pre { break-inside: avoid; } h2 { break-after: avoid; margin-top: 1.2rem; } thead { display: table-header-group; }
  figure { display: inline-block; width: 48%; vertical-align: top; margin: .5rem 1% 1rem 0; } figure img { max-height: 95mm; max-width: 100%; width: auto; }
}
"""
