"""One self-contained HTML page that shows what came of classifying a folder of pictures."""

from fewshot.classification.report.page import write_report

__all__ = ["write_report"]
