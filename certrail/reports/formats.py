"""Reports as files: CSV, JSON, HTML, XLSX and PDF.

Names in certificates come from strangers. A cell that a spreadsheet would run
as a formula is kept as text, HTML and PDF are escaped, control characters go.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from certrail.errors import InvalidRequest
from certrail.log import plain
from certrail.reports import page, svg
from certrail.reports.report import Chart, Report
from certrail.store.request_view import time_text

# What spreadsheets take for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_LONGEST_CELL = 32_000
_PDF_ROWS = 2_000
_PDF_COLUMNS = 8


def rendered(report: Report, format_: str) -> bytes:
    """Return the report as a file of that format.

    Raises:
        InvalidRequest: there is no such format.
    """
    if format_ not in FORMATS:
        raise InvalidRequest(
            f"reports have no format {format_!r}", remedy=f"Formats are: {', '.join(FORMATS)}"
        )
    return FORMATS[format_](report)


def text_of(value: Any) -> str:
    """Return plain data as the text of one cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return plain(str(value.get("code") or json.dumps(value, default=str)))
    if isinstance(value, list | tuple):
        return " ".join(text_of(item) for item in value)
    return plain(str(value))


def harmless(text: str) -> str:
    """Return *text* so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv(report: Report) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([key for key, _ in report.columns])
    for row in report.rows:
        writer.writerow([_csv_cell(row.get(key)) for key, _ in report.columns])
    return out.getvalue().encode()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return harmless(text_of(value))


def _json(report: Report) -> bytes:
    whole = {
        "kind": report.kind,
        "title": report.title,
        "at": time_text(report.at),
        "about": report.about,
        "columns": [key for key, _ in report.columns],
        "rows": [{key: row.get(key) for key, _ in report.columns} for row in report.rows],
        "charts": [
            {"title": chart.title, "points": [list(point) for point in chart.points]}
            for chart in report.charts
        ],
    }
    return (json.dumps(whole, indent=2, default=str) + "\n").encode()


def _html(report: Report) -> bytes:
    about = f" · {escape(plain(report.about))}" if report.about else ""
    body = [
        f'<p class="at">as of {report.at:%Y-%m-%d %H:%M} UTC · {len(report.rows):,} rows{about}</p>'
    ]
    for chart in _shown(report):
        draw = svg.columns if _is_by_day(chart) else svg.bars
        body.append(f"<h2>{escape(chart.title)}</h2>{draw(chart.points)}")
    body.append("<h2>Rows</h2>")
    body.append(
        page.table(
            [heading for _, heading in report.columns],
            ([_number_or_text(row.get(key)) for key, _ in report.columns] for row in report.rows),
        )
    )
    return page.page(report.title, "".join(body)).encode()


def _xlsx(report: Report) -> bytes:
    import xlsxwriter

    out = io.BytesIO()
    book = xlsxwriter.Workbook(
        out,
        # Text stays text, whatever it looks like: no formula, no link, no number.
        {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False},
    )
    book.set_properties({"title": report.title, "comments": report.about})
    bold = book.add_format({"bold": True, "bottom": 1})
    sheet = book.add_worksheet("Rows")
    widths = [len(heading) for _, heading in report.columns]
    for number, (_, heading) in enumerate(report.columns):
        sheet.write_string(0, number, heading, bold)
    for line, row in enumerate(report.rows, start=1):
        for number, (key, _) in enumerate(report.columns):
            value = row.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool):
                sheet.write_number(line, number, value)
                continue
            text = text_of(value)[:_LONGEST_CELL]
            sheet.write_string(line, number, text)
            widths[number] = max(widths[number], len(text))
    for number, width in enumerate(widths):
        sheet.set_column(number, number, min(width + 2, 60))
    sheet.freeze_panes(1, 1)
    sheet.autofilter(0, 0, max(1, len(report.rows)), max(0, len(report.columns) - 1))
    _xlsx_charts(book, report)
    book.close()
    return out.getvalue()


def _xlsx_charts(book: Any, report: Report) -> None:
    charts = _shown(report)
    if not charts:
        return
    sheet = book.add_worksheet("Charts")
    sheet.set_column(0, 0, 40)
    line = 0
    for one in charts:
        sheet.write_string(line, 0, one.title)
        first = line + 1
        for label, count in one.points:
            line += 1
            sheet.write_string(line, 0, plain(label)[:_LONGEST_CELL])
            sheet.write_number(line, 1, count)
        chart = book.add_chart({"type": "column" if _is_by_day(one) else "bar"})
        chart.set_title({"name": one.title})
        chart.set_legend({"none": True})
        chart.add_series(
            {"categories": ["Charts", first, 0, line, 0], "values": ["Charts", first, 1, line, 1]}
        )
        sheet.insert_chart(first - 1, 3, chart)
        line = max(line + 2, first + 16)


def _pdf(report: Report) -> bytes:
    from reportlab.lib import colors
    from reportlab.lib.pagesizes import A4, landscape
    from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
    from reportlab.platypus import LongTable, Paragraph, SimpleDocTemplate, Spacer, TableStyle

    out = io.BytesIO()
    document = SimpleDocTemplate(
        out,
        pagesize=landscape(A4),
        leftMargin=36,
        rightMargin=36,
        topMargin=36,
        bottomMargin=36,
        title=_latin(report.title),
        author="Certrail",
    )
    styles = getSampleStyleSheet()
    small = ParagraphStyle(
        "small", parent=styles["Normal"], fontSize=7, leading=9, splitLongWords=1
    )

    def words(text: Any, style: Any = small) -> Any:
        return Paragraph(escape(_latin(text_of(text))), style)

    about = f" · {report.about}" if report.about else ""
    story: list[Any] = [
        words(report.title, styles["Title"]),
        words(
            f"as of {report.at:%Y-%m-%d %H:%M} UTC · {len(report.rows):,} rows{about}",
            styles["Normal"],
        ),
        Spacer(1, 10),
    ]
    for chart in _shown(report):
        story += [words(chart.title, styles["Heading3"]), _drawing(chart), Spacer(1, 8)]
    keys = report.columns[:_PDF_COLUMNS]
    lines = [
        [
            words(heading, ParagraphStyle("head", parent=small, fontName="Helvetica-Bold"))
            for _, heading in keys
        ]
    ]
    lines += [
        [words(text_of(row.get(key))[:400]) for key, _ in keys] for row in report.rows[:_PDF_ROWS]
    ]
    width = document.width / max(1, len(keys))
    table = LongTable(lines, colWidths=[width] * len(keys), repeatRows=1)
    table.setStyle(
        TableStyle(
            [
                ("LINEBELOW", (0, 0), (-1, -1), 0.25, colors.lightgrey),
                ("LINEBELOW", (0, 0), (-1, 0), 0.75, colors.black),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (-1, -1), 2),
            ]
        )
    )
    story.append(table)
    left = []
    if len(report.rows) > _PDF_ROWS:
        left.append(f"{len(report.rows) - _PDF_ROWS:,} rows")
    if len(report.columns) > _PDF_COLUMNS:
        left.append(f"columns {', '.join(h for _, h in report.columns[_PDF_COLUMNS:])}")
    if left:
        story += [Spacer(1, 8), words(f"Not on paper: {'; '.join(left)}. CSV and XLSX have all.")]
    document.build(story, onFirstPage=_page_number, onLaterPages=_page_number)
    return out.getvalue()


def _page_number(canvas: Any, document: Any) -> None:
    canvas.setFont("Helvetica", 7)
    canvas.drawRightString(document.pagesize[0] - 36, 20, f"page {document.page}")


def _drawing(chart: Chart) -> Any:
    from reportlab.graphics.charts.barcharts import HorizontalBarChart, VerticalBarChart
    from reportlab.graphics.shapes import Drawing
    from reportlab.lib import colors

    upright = _is_by_day(chart)
    points = list(chart.points) if upright else list(reversed(chart.points))
    height = 130 if upright else 16 * len(points) + 24
    drawing = Drawing(760, height + 20)
    bars = VerticalBarChart() if upright else HorizontalBarChart()
    bars.x, bars.y = (40, 34) if upright else (200, 16)
    bars.width, bars.height = (700 if upright else 520), height - (30 if upright else 8)
    bars.data = [[count for _, count in points]]
    bars.categoryAxis.categoryNames = [_latin(label)[:38] for label, _ in points]
    bars.categoryAxis.labels.fontSize = 7
    if upright:
        bars.categoryAxis.labels.angle = 60
        bars.categoryAxis.labels.boxAnchor = "e"
    bars.valueAxis.valueMin = 0
    bars.valueAxis.labels.fontSize = 7
    bars.valueAxis.labelTextFormat = "%d"
    bars.bars[0].fillColor = colors.HexColor("#2f6fb3")
    bars.bars[0].strokeColor = None
    bars.barLabels.fontSize = 7
    bars.barLabelFormat = "%d"
    bars.barLabels.nudge = 8
    drawing.add(bars)
    return drawing


def _latin(text: str) -> str:
    """Return *text* in what PDF's own fonts can write; other letters as their code."""
    return "".join(
        sign if sign.encode("cp1252", "ignore") else f"\\u{ord(sign):04x}" for sign in plain(text)
    )


def _shown(report: Report) -> list[Chart]:
    return [chart for chart in report.charts if chart.points]


def _is_by_day(chart: Chart) -> bool:
    return chart.title.endswith("by day")


def _number_or_text(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return text_of(value)


FORMATS: Mapping[str, Callable[[Report], bytes]] = {
    "csv": _csv,
    "xlsx": _xlsx,
    "json": _json,
    "html": _html,
    "pdf": _pdf,
}
