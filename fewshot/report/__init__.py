"""One self-contained HTML page that shows what came of classifying a folder of pictures."""

from __future__ import annotations

from fewshot.report.page import write_report

__all__ = ["write_report"]
