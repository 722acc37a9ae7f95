"""The report of a drill as one HTML page, Japanese first: it needs no other file, no script and no network."""

from collections.abc import Iterable
from html import escape
from typing import Final

from chukan.ops.drills.picture import Picture, legend
from chukan.ops.drills.report import Report

_STYLE: Final = """
:root{color-scheme:light}body{font:15px/1.6 "Hiragino Sans","Noto Sans CJK JP","Noto Sans JP",Meiryo,sans-serif;
margin:0 auto;max-width:1220px;padding:24px;color:#1c1c1c;background:#fff}h1{font-size:24px;margin:0}h1 small,h2 small
{font-weight:normal;color:#555;font-size:70%}h2{font-size:17px;margin:28px 0 8px;border-bottom:1px solid #ddd}
.verdict{display:inline-block;padding:4px 14px;border-radius:4px;color:#fff;font-weight:bold;margin:10px 0}
.yes{background:#1a6b3c}.no{background:#b3261e}table{border-collapse:collapse;width:100%}td,th{text-align:left;
padding:4px 10px;border-bottom:1px solid #eee;vertical-align:top}td.n{text-align:right;white-space:nowrap}
.bad{color:#b3261e;font-weight:bold}.good{color:#1a6b3c}.en{color:#555}.key{margin-right:14px;white-space:nowrap}
.key i{display:inline-block;width:14px;height:12px;margin-right:5px;vertical-align:-1px}svg{width:100%;height:auto;
border:1px solid #ddd;border-radius:4px}.numbers{display:flex;flex-wrap:wrap;gap:12px;margin:14px 0}.numbers div{border:
1px solid #ddd;border-radius:4px;padding:8px 14px;min-width:120px}.numbers b{display:block;font-size:22px}
@media print{body{max-width:none}}
"""


def page(report: Report) -> str:
    """Return the page."""
    return "".join((
        '<!doctype html><html lang="ja"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>切替訓練 {escape(report.title_ja)} {escape(report.id)}</title><style>{_STYLE}</style></head><body>",
        _head(report),
        _numbers(report),
        f"<h2>経過 <small>Timeline</small></h2>{Picture(report).svg()}<p>{legend()}</p>",
        _claims(report),
        _bounds(report),
        _events(report),
        _troubles(report),
        _foot(report),
        "</body></html>\n",
    ))  # fmt: skip


def _head(report: Report) -> str:
    word = "合格 passed" if report.passed else "不合格 not passed"
    return (
        f"<h1>切替訓練報告: {escape(report.title_ja)} <small>{escape(report.title_en)}</small></h1>"
        f'<div class="verdict {"yes" if report.passed else "no"}">{word}</div>'
        f'<p>{escape(report.breaks_ja)}<br><span class="en">{escape(report.breaks_en)}</span></p>'
    )


def _numbers(report: Report) -> str:
    verdict = report.verdict
    shown = (
        (f"{report.rto_s:.1f} s", "最長の停止(RTO) longest outage"),
        (f"{report.rpo_lost}", "失われた受付(RPO) acknowledged and lost"),
        (f"{verdict.acknowledged:,}", "受け付けた要求 acknowledged"),
        (f"{verdict.duplicates}", "重複 duplicates"),
        (f"{verdict.two_writers}", "二重主系の兆候 two writers"),
        (f"{verdict.wrong_answers}", "誤った回答 wrong answers"),
        (f"{verdict.failed_requests:,}", "失敗した要求 failed requests"),
    )
    return f'<div class="numbers">{"".join(f"<div><b>{escape(n)}</b>{escape(text)}</div>" for n, text in shown)}</div>'


def _claims(report: Report) -> str:
    words = {True: '<span class="good">成立 holds</span>', False: '<span class="bad">不成立 does not hold</span>',
             None: '<span class="bad">判定できず not judged</span>'}  # fmt: skip
    rows = "".join(
        f'<tr><td>{escape(claim.ja)}<br><span class="en">{escape(claim.en)}</span></td>'
        f"<td>{words[claim.held]}</td></tr>"
        for claim in report.claims()
    )
    return f"<h2>成り立つべきこと <small>What must hold</small></h2><table>{rows}</table>"


def _bounds(report: Report) -> str:
    rows = "".join(
        f'<tr><td>{escape(bound.what)}</td><td class="n">{bound.seen_s:.2f} s</td>'
        f'<td class="n">≤ {bound.limit_s:g} s</td>'
        f"<td>{_held(held=bound.held)}</td></tr>"
        for bound in report.bounds()
    )
    heading = "<tr><th>項目 what</th><th>実測 seen</th><th>上限 bound</th><th></th></tr>"
    return f"<h2>時間の上限 <small>Bounds</small></h2><table>{heading}{rows}</table>"


def _held(*, held: bool) -> str:
    return '<span class="good">以内 within</span>' if held else '<span class="bad">超過 beyond</span>'


def _events(report: Report) -> str:
    rows = "".join(
        f'<tr><td class="n">{number}</td><td class="n">{event.at:.1f} s</td><td>{escape(event.ja)}<br>'
        f'<span class="en">{escape(event.en)}</span></td></tr>'
        for number, event in enumerate(report.events, start=1)
    )
    return f"<h2>実施内容 <small>What was done</small></h2><table>{rows}</table>"


def _troubles(report: Report) -> str:
    parts: list[str] = []
    if report.ended_early:
        parts.append(f'<p class="bad">途中で終了しました。 Ended early: {escape(report.ended_early)}</p>')
    if report.unhealed:
        parts.append(f'<p class="bad">復旧できなかったもの Could not be healed:</p><ul>{_items(report.unhealed)}</ul>')
    if report.notes:
        parts.append(f"<ul>{_items(report.notes)}</ul>")
    faults = report.faults()
    if faults:
        rows = "".join(
            f"<tr><td>{escape(fault.counts_as)}</td><td>{escape(fault.kind)}</td><td>{escape(fault.about)}</td>"
            f"<td>{escape(fault.detail)}</td></tr>"
            for fault in faults
        )
        parts.append(f"<table>{rows}</table>")
    return f"<h2>問題点 <small>Troubles</small></h2>{''.join(parts)}" if parts else ""


def _items(texts: Iterable[str]) -> str:
    return "".join(f"<li>{escape(text)}</li>" for text in texts)


def _foot(report: Report) -> str:
    verdict = report.verdict
    outcomes = ", ".join(f"{name} {count:,}" for name, count in verdict.outcomes.items())
    durable = ", ".join(f"{name} {count:,}" for name, count in verdict.durability.items())
    doubt = ", ".join(f"{name} {count:,}" for name, count in verdict.in_doubt.items()) or "0"
    facts = (
        ("識別子 id", report.id),
        ("拠点構成 site", f"{report.site} {report.topology}"),
        ("開始 begun", report.begun_at),
        ("所要 seconds", f"{report.seconds:.0f} s"),
        (
            "要求 requests",
            f"{verdict.requests:,} (拒否 refused {verdict.refused_requests:,}; 結果不明 in doubt {doubt})",
        ),
        ("照会の結果 outcomes", outcomes),
        ("受付時の耐久性 durability when acknowledged", durable),
        ("版 version", report.version),
    )
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts)
    signed = (
        "この報告には、同じフォルダーの report.html.sig(Ed25519)が付いています。 Signed: report.html.sig beside it."
    )
    return f'<h2>記録 <small>Facts</small></h2><table>{rows}</table><p class="en">{signed}</p>'
