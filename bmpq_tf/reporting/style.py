"""The style sheet of a report: light, dark, print; from a phone's width up."""

_LIGHT = """
--page: #ffffff; --card: #f6f8fa; --text: #1b1f24; --soft: #57606a; --line: #d0d7de;
--link: #0a58ca; --empty: #eaeef2;
--w2: #a9cbec; --w3: #82b2e1; --w4: #5c98d3; --w5: #407ec0; --w6: #2b66a8; --w7: #1c4e8c;
--w8: #103870; --w16: #8250a8; --w32: #d97706; --other: #6e7781; --rest: #b6bfc8;
--s0: #fbe3cf; --s1: #f8c9a4; --s2: #f2ab79; --s3: #e88b53; --s4: #d76a35; --s5: #bb4a20;
--s6: #953113; --s7: #6b1d0a;
--ours: #1a7f52; --theirs: #8c959f; --over: #cf222e; --l0: #0a58ca; --l1: #c2410c;
"""
_DARK = """
--page: #0d1117; --card: #161b22; --text: #e6edf3; --soft: #9aa4ae; --line: #30363d;
--link: #6cb0ff; --empty: #1c232b;
--w2: #1f4f86; --w3: #2c66a5; --w4: #3d7fc4; --w5: #5a99da; --w6: #7bb2e8; --w7: #a0caf2;
--w8: #c9e1fa; --w16: #b48ad6; --w32: #f0a040; --other: #98a2ac; --rest: #4a535d;
--s0: #46210f; --s1: #662c13; --s2: #893a17; --s3: #ac4c1f; --s4: #cd6530; --s5: #e58550;
--s6: #f3aa80; --s7: #fdd6ba;
--ours: #3fb97f; --theirs: #6e7781; --over: #ff7b72; --l0: #6cb0ff; --l1: #ffa657;
"""
_LOOKS = (
    *(f"w{bits}" for bits in (2, 3, 4, 5, 6, 7, 8, 16, 32)),
    *(f"s{level}" for level in range(8)),
    *("other", "rest", "ours", "theirs", "over", "l0", "l1"),
)
_COLOURS = "\n".join(
    f".{look} {{ fill: var(--{look}); background: var(--{look}); }}" for look in _LOOKS
)

STYLE = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }}
main {{ max-width: 64rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }}
h1 {{ margin: 0; font-size: 1.8rem; line-height: 1.2; overflow-wrap: anywhere; }}
h2 {{ margin: 0 0 .5rem; font-size: 1.25rem; }}
p {{ margin: 0 0 .75rem; }}
.kind, .file, .intro, figcaption, caption, .key, .tick {{ color: var(--soft); }}
.kind {{ margin: 0; font-size: .875rem; }}
.file {{ overflow-wrap: anywhere; }}
section {{ margin-top: 2.25rem; padding-top: 1.25rem; border-top: 1px solid var(--line); }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0 0; padding: 0; list-style: none; }}
.tiles li {{ padding: .75rem .875rem; border-radius: .5rem; background: var(--card);
  border: 1px solid var(--line); }}
.tiles b {{ display: block; font-size: 1.35rem; line-height: 1.3; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums; }}
.tiles span {{ font-size: .875rem; color: var(--soft); overflow-wrap: anywhere; }}
.figures {{ display: grid; gap: 1.5rem; margin: 0 0 1.25rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); }}
figure {{ margin: 0; min-width: 0; }}
figure:has(.strips, .bars, .stack) {{ grid-column: 1 / -1; }}
figcaption {{ margin-bottom: .5rem; font-size: .9rem; }}
caption {{ padding-bottom: .25rem; text-align: left; font-size: .9rem; }}
svg {{ display: block; width: 100%; }}
svg.cells, svg.bar, svg.stack {{ height: 1.1rem; border-radius: 2px; background: var(--empty);
  shape-rendering: crispEdges; }}
svg.stack {{ height: 2rem; border-radius: 4px; }}
svg.chart {{ max-width: 30rem; }}
.chart text {{ font-size: 12px; fill: var(--soft); font-variant-numeric: tabular-nums; }}
.grid {{ stroke: var(--line); stroke-width: 1; }}
.line {{ stroke-width: 2; stroke-linejoin: round; }}
.line.l0 {{ stroke: var(--l0); }}
.line.l1 {{ stroke: var(--l1); stroke-dasharray: 5 3; }}
{_COLOURS}
.line.l0, .line.l1 {{ fill: none; }}
.key {{ display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .5rem 0 .75rem; padding: 0;
  list-style: none; font-size: .875rem; font-variant-numeric: tabular-nums; }}
.scale {{ display: block; }}
.swatch {{ display: inline-block; width: .8em; height: .8em; margin-right: .4em;
  border-radius: 2px; vertical-align: -.05em; }}
.scale .swatch {{ width: 1.1em; margin: 0; border-radius: 0; }}
.none {{ background: var(--empty); box-shadow: inset 0 0 0 1px var(--line); }}
.strips > div, .bars > div {{ display: grid; align-items: center; column-gap: .75rem;
  padding: .15rem 0; }}
.strips > div {{ grid-template-columns: minmax(7rem, 14rem) 1fr 1fr 3rem; }}
.bars > div {{ grid-template-columns: minmax(7rem, 14rem) 1fr minmax(9rem, auto); }}
.strips .head {{ align-items: end; background: var(--page);
  font-size: .875rem; color: var(--soft); }}
.name {{ font-size: .875rem; line-height: 1.3; overflow-wrap: anywhere; }}
.value {{ text-align: right; font-size: .875rem; font-variant-numeric: tabular-nums; }}
.bars .value {{ min-width: 12rem; text-align: left; }}
.tall {{ max-height: 34rem; overflow: auto; padding: 0 .5rem; border: 1px solid var(--line);
  border-radius: .5rem; }}
.scroll {{ overflow-x: auto; }}
.tall .head, .tall thead th {{ position: sticky; top: 0; background: var(--page); }}
.scroll + .scroll, details {{ margin-top: 1rem; }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; font-weight: normal; }}
thead th {{ color: var(--soft); font-weight: 600; }}
th[scope=row]:not(.number) {{ min-width: 8rem; max-width: 22rem; overflow-wrap: anywhere; }}
td {{ min-width: 3.5rem; max-width: 34rem; overflow-wrap: anywhere; }}
.wide {{ width: max-content; }}
.wide td {{ max-width: 22rem; }}
.word {{ display: inline-block; max-width: 100%; word-break: break-all; }}
.number {{ text-align: right; white-space: nowrap; overflow-wrap: normal; }}
summary {{ cursor: pointer; color: var(--link); }}
details > .scroll, details > pre {{ margin-top: .5rem; }}
pre {{ overflow: auto; padding: .75rem; border-radius: .5rem; background: var(--card);
  font: .8rem/1.5 ui-monospace, "SFMono-Regular", Menlo, Consolas, monospace; }}
:focus-visible {{ outline: 2px solid var(--link); outline-offset: 2px; }}
@media (max-width: 40rem) {{
  .strips > div {{ grid-template-columns: 1fr 1fr 2.75rem; padding: .3rem 0; }}
  .strips .name {{ grid-column: 1 / -1; }}
  .strips .head .name {{ display: none; }}
  .wide th[scope=row] {{ max-width: 9rem; }}
  .wide td {{ max-width: 14rem; }}
  .bars > div {{ grid-template-columns: 1fr auto; padding: .3rem 0; }}
  .bars .strip {{ grid-column: 1 / -1; grid-row: 2; }}
  .bars .value {{ min-width: 0; text-align: right; }}
}}
@media print {{
  :root {{ font-size: 11px; }}
  main {{ max-width: none; padding: 0; }}
  svg, .swatch, .tiles li {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
  .tall {{ max-height: none; overflow: visible; border: 0; padding: 0; }}
  .scroll {{ overflow: visible; }}
  .wide {{ width: auto; }}
  .tall .head, .tall thead th {{ position: static; }}
  .strips > div, .bars > div, tr, svg.chart {{ break-inside: avoid; }}
  h2, figcaption, caption {{ break-after: avoid; }}
  details::details-content {{ content-visibility: visible; block-size: auto; }}
  .text {{ display: none; }}
}}
""".strip()
