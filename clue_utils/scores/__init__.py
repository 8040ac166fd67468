"""The tasks' metrics, of plain Python and numpy values: none depends on batches, ranks or PaddlePaddle."""
