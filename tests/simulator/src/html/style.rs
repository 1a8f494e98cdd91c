//! How the page looks. Colours are variables, so that the dark scheme is a second list of values.

/// The style sheet.
pub const SHEET: &str = "\
:root{color-scheme:light dark;--back:#fff;--text:#1c2128;--faint:#656d76;--line:#d0d7de;--lane:#f6f8fa;
--good:#2da44e;--bad:#cf222e;--wait:#eac54f;--down:#afb8c1;--sick:#e5752b;--stop:#a47551;--away:#a475f9;
--dead:#d1495b;--rest:#54aeff;--move:#3bb4c1;--none:#dfe3e8;--vm:#0969da;--cold:#57606a;--ink:#10151b}
@media (prefers-color-scheme:dark){:root{--back:#0d1117;--text:#e6edf3;--faint:#8d96a0;--line:#30363d;--lane:#161b22;
--good:#3fb950;--bad:#ff6b63;--wait:#d4a72c;--down:#6e7681;--sick:#f0883e;--stop:#b08968;--away:#bc8cff;
--dead:#e5707e;--rest:#58a6ff;--move:#56d4dd;--none:#3d444d;--vm:#79c0ff;--cold:#484f58;--ink:#05080c}}
body{background:var(--back);color:var(--text);font:14px/1.45 system-ui,sans-serif;margin:1.5rem auto;max-width:1280px;padding:0 1rem}
h1{font-size:1.25rem;margin:0 0 .3rem}h2{font-size:1rem;margin:1.5rem 0 .4rem}p{margin:.3rem 0}
.yes{color:var(--good)}.no{color:var(--bad)}
.broken,.meant{border-left:4px solid var(--bad);padding:.3rem .7rem;background:var(--lane)}
.broken{color:var(--bad)}.meant{border-color:var(--wait)}
.picture{overflow-x:auto;margin-top:.8rem}svg{display:block;width:100%;min-width:860px;height:auto}
svg text{font:11px system-ui,sans-serif;fill:var(--text)}svg .faint{fill:var(--faint)}svg .on{fill:var(--ink)}
svg .mark{font-size:10px}svg .ok{fill:var(--good)}svg .ko{fill:var(--bad);font-weight:bold}
.lane{fill:var(--lane)}.grid{stroke:var(--line)}.step{stroke:var(--faint);stroke-dasharray:2 3}
.shot{fill:var(--faint)}.crack{stroke:var(--bad);stroke-width:2}.broken-promise{fill:var(--bad)}.tick{stroke:var(--ink);stroke-width:1.5;opacity:.6}
.up{fill:var(--good)}.starting{fill:var(--wait)}.down{fill:var(--down)}.sick{fill:var(--sick)}.stopping{fill:var(--stop)}
.away{fill:var(--away)}.dead{fill:var(--dead)}.rest{fill:var(--rest)}.moving{fill:var(--move)}.none{fill:var(--none)}
.vm{fill:var(--vm)}.vmstill{fill:none;stroke:var(--vm);stroke-width:1.5}.vmdying{fill:var(--bad)}
.off{fill:var(--cold);opacity:.85}.offtext{fill:#fff}.frozen{fill:var(--rest);opacity:.55}
.stalled{fill:var(--bad)}.failing{fill:var(--sick)}.slow{fill:var(--wait)}.net{fill:var(--away)}
.gone{fill:none;stroke:var(--bad);stroke-dasharray:4 2}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;color:var(--faint);font-size:12px;margin:.5rem 0;padding:0}
.legend li{list-style:none}.legend svg{display:inline-block;width:22px;min-width:0;height:12px;vertical-align:-1px;margin-right:.35rem}
table{border-collapse:collapse;font-size:13px;width:100%}th{text-align:left;color:var(--faint);font-weight:500}
th,td{padding:.15rem .6rem .15rem 0;vertical-align:top;border-bottom:1px solid var(--line)}
.n{width:1%;text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.command td{background:var(--lane);font-weight:600}.violation td{color:var(--bad);font-weight:600}.world td{color:var(--faint)}
.vm td:last-child{color:var(--vm)}
";
