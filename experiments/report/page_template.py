"""What every report's page is put into: its head and its style, which load nothing."""

import string

PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --page: #fff; --ink: #1f2933; --grey: #5f6b76; --line: #e4e7eb;
  --soft: #f5f7fa; --spine: #9aa5b1; --wrong: #c0392b; --warm: #fff8e6; --alarm: #fdecea;
  --baseline: #222222; --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #56b4e9;
  --c5: #e69f00; --c6: #6a51a3; --c7: #8c6d31; }
@media (prefers-color-scheme: dark) { :root { --page: #14181d; --ink: #e6eaee; --grey: #a3afba;
  --line: #2c343c; --soft: #1d232a; --spine: #6b7782; --wrong: #ff8a75; --warm: #2e2712;
  --alarm: #3a1d19; --baseline: #f2f2f2; --c0: #4aa8e8; --c1: #ff8433; --c2: #2cc79a; --c3: #e39ac3;
  --c4: #8fd0f7; --c5: #ffc14d; --c6: #a893e6; --c7: #c9a45e; } }
* { box-sizing: border-box; stroke-linejoin: round; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial,
  sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2.2rem 1.2rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .8rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
h2 small { color: var(--grey); font-size: .87rem; font-weight: 400; margin-left: .5rem; }
.cards + .legend { margin-top: 1.5rem; } .charts + .table { margin-top: 1.2rem; }
.small + .table { margin-top: 1.2rem; } h2 + .legend, h2 + .table { margin-top: 0; }
p { margin: .5rem 0; max-width: 46rem; }
.sub, .small, figcaption { color: var(--grey); }
.small { font-size: .87rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: .9rem;
  margin: 1.5rem 0 0; }
.card { border: 1px solid var(--line); border-top: 4px solid var(--colour); border-radius: 6px;
  padding: .9rem 1rem; }
.card .name { font-weight: 600; overflow-wrap: anywhere; }
.card .big { font-size: 1.75rem; font-weight: 650; line-height: 1.25; letter-spacing: -.02em; }
.card .big small { font-size: .95rem; font-weight: 500; letter-spacing: 0; }
.notes { background: var(--warm); border-left: 4px solid #e6b422; padding: .6rem 1rem; margin: 1.5rem 0;
  border-radius: 0 6px 6px 0; }
.notes.headline { background: var(--alarm); border-left-color: var(--wrong); }
.card .unlike { color: var(--wrong); font-size: .87rem; overflow-wrap: anywhere; }
.notes p { margin: .2rem 0; overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; font-size: .92rem; margin: .2rem 0 .6rem; }
.legend i { display: inline-block; width: 1.3em; height: .24em; margin-right: .45em;
  vertical-align: .22em;
  background: var(--colour); border-radius: 2px; }
.legend.parts i { width: .8em; height: .8em; vertical-align: -.05em; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 430px), 1fr));
  gap: 1.4rem 1.6rem; }
.charts svg { display: block; width: 100%; height: auto; }
.table { overflow-x: auto; margin: 0 -1.2rem; padding: 0 1.2rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th { text-align: right; font-weight: 600; color: var(--grey); vertical-align: bottom; line-height: 1.3; }
th, td { padding: .4rem .55rem; border-bottom: 1px solid var(--line); }
td { text-align: right; white-space: nowrap; }
table.left th, table.left td { text-align: left; }
table.left td:nth-child(n+3) { white-space: normal; min-width: 7rem; }
table.wrapped td:nth-child(n+4) { white-space: normal; min-width: 9rem; }
td.long { white-space: normal; min-width: 11rem; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--page); }
tr.mean td, tr.mean td:first-child { background: var(--soft); font-weight: 600; }
td.none { color: var(--spine); }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(76px, 1fr)); gap: .7rem .5rem;
  margin: .6rem 0 1.4rem; }
.images figure { margin: 0; text-align: center; }
.images img { width: 64px; height: 64px; object-fit: contain; image-rendering: pixelated;
  background: var(--soft);
  border: 1px solid var(--line); border-radius: 4px; }
.images .wrong img { border: 3px solid var(--wrong); }
.images figcaption { font-size: .72rem; line-height: 1.25; overflow-wrap: anywhere; }
.images .wrong figcaption b { color: var(--wrong); font-weight: 600; }
summary { cursor: pointer; font-weight: 600; margin: 1rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; font-size: .88rem;
  margin: 0; }
dt { color: var(--grey); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 480px) { main { padding-top: 1.3rem; } h1 { font-size: 1.4rem; } }
</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
""")
