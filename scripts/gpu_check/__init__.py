"""The acceptance kit of check_gpu.sh: does what the project promises hold on the GPUs of this machine?

``__main__`` runs the parts, each a process of its own (``part``) with a time limit. A part is a module with a function
``check(report, bench)`` that imports no PaddlePaddle: what computes runs in further processes (``jobs``, ``call``) and
stands in ``on_device``. What was found is a list of ``checks``, judged by ``verdict`` and written by ``document``.
"""
