"""What a command leaves behind: folder, record, results, predictions, resumption, W&B, ledger, comparison."""
