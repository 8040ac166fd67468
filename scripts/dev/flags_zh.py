"""What each flag of the four scripts means, in Chinese: the English of ``--help`` -> Chinese."""

from __future__ import annotations

from collections.abc import Mapping

FLAGS: Mapping[str, str] = {
    # Headings, and what is said below one of them.
    "task": "任务",
    "model and data": "模型与数据",
    "what to do (at least one)": "做什么（至少一项）",
    "ensemble": "集成",
    "training": "训练",
    "output": "输出",
    "device": "设备",
    "A flag left out takes the value the checkpoint was trained with, else the registry's for the task.": (
        "未指定的参数取检查点训练时的值；没有时取注册表中该任务的值。"
    ),
    # Defaults in words.
    "the task's": "任务的值",
    "the model's best": "该模型的最优值",
    "the model's best; with --lora_rank 1e-04": "该模型的最优值；使用 `--lora_rank` 时为 1e-4",
    "the model's best, shared out over the GPUs": "该模型的最优值，由各卡平分",
    "100 for classification, 0 for reading": "分类任务 100，阅读理解任务 0",
    "best_<task>_model": "`best_<task>_model`",
    # Flags.
    (
        "one of AFQMC, TNEWS, IFLYTEK, CMNLI, OCNLI, CLUEWSC2020, CSL, in any letter case; else give --task_file"
    ): "AFQMC、TNEWS、IFLYTEK、CMNLI、OCNLI、CLUEWSC2020、CSL 之一，不区分大小写；自定义任务改用 `--task_file`",
    "a PaddleNLP model name such as ernie-3.0-base-zh, or the folder of a checkpoint": (
        "PaddleNLP 的模型名（如 `ernie-3.0-base-zh`），或检查点所在目录"
    ),
    (
        "folder that holds the official files, such as tnews_public/train.json "
        "(default: $CLUE_DATA_DIR, else a cache filled by download)"
    ): (
        "官方数据所在目录，其中有 `tnews_public/train.json` 等文件"
        "（默认：`$CLUE_DATA_DIR`；未设置时自动下载到缓存目录）"
    ),
    "a task of your own in place of CLUE's, described in JSON": "用 JSON 文件描述的自定义任务，代替 CLUE 的任务",
    (
        "training examples in the task's form, in place of those of --data_dir; several files are joined; CHID "
        "takes one, x.json, with its answers in x_answer.json beside it"
    ): (
        "代替 `--data_dir` 中训练集的文件，格式与该任务相同；可给出多个，依次拼接；CHID 只能给出一个 `x.json`，"
        "答案在它旁边的 `x_answer.json` 中"
    ),
    "the same for the development set": "代替验证集的文件，用法同上",
    "one test set in place of all of --data_dir's, predicted to <task>_predict.json": (
        "代替 `--data_dir` 中全部测试集的文件，预测写入 `<task>_predict.json`"
    ),
    "train on the first N examples only (default: all)": "只用训练集的前 N 条样本（默认：全部）",
    "evaluate on the first N examples only (default: all)": "只用验证集的前 N 条样本（默认：全部）",
    "tokens of a sequence, longer ones are cut": "序列的最大 token 数，超出部分截断",
    "processes that build features (default: the processors of this machine)": (
        "构建特征的进程数（默认：本机的处理器数）"
    ),
    "build cached features again": "重新构建已缓存的特征",
    "fine-tune, evaluate on the way, keep the best checkpoint": "微调，期间定期评估，保留最优检查点",
    "evaluate on the development set": "在验证集上评估",
    "write the predictions of every test set": "预测每个测试集并写出预测文件",
    "write the model to inference/ in --output_dir, for Paddle Inference and without this project": (
        "把推理模型写入 `--output_dir` 下的 `inference/`，供 Paddle Inference 使用，不再依赖本项目"
    ),
    "with --do_export: write model.onnx there too, for ONNX Runtime and others": (
        "与 `--do_export` 同用：另外写出 `model.onnx`，供 ONNX Runtime 等使用"
    ),
    (
        "answer the records of a file of your own, or of standard input (-); they are without labels: in .txt a text a "
        "line (a tab between two texts), in .jsonl an object with the task's fields a line, in .csv a row below a "
        "header with the fields, in .json as in the task's own test files"
    ): (
        "预测自己的文件，或标准输入（`-`）；不需要标签。`.txt` 每行一条文本（两段文本用制表符隔开），`.jsonl` 每行一个"
        "含任务字段的对象，`.csv` 首行为字段名，`.json` 与该任务的测试文件相同"
    ),
    (
        "file for the answers to --predict_file, a JSON object a line, or .csv; -: standard output, while the log goes "
        "to standard error"
    ): (
        "`--predict_file` 的预测结果写到哪个文件，每行一个 JSON 对象，或 `.csv`；"
        "`-` 表示标准输出，此时日志改写到标准错误"
    ),
    (
        "further checkpoints of the task, whose probabilities are averaged with those of --model_name_or_path in "
        "--do_eval and --do_predict; all are held in memory"
    ): (
        "同一任务的其他检查点；`--do_eval` 和 `--do_predict` 时与 `--model_name_or_path` 的概率取平均，全部同时装入内存"
    ),
    "examples per GPU and step": "每张卡、每一步的样本数",
    "peak learning rate": "学习率的峰值",
    "passes over the training set": "训练轮数",
    "stop after this many steps; -1: by epochs": "最多训练多少步；-1 表示由训练轮数决定",
    "share of all steps spent warming up": "预热步数占总步数的比例",
    "steps spent warming up, above --warmup_proportion if not 0": "预热步数，不为 0 时优先于 `--warmup_proportion`",
    "of AdamW": "AdamW 的参数",
    "clip gradients; 0: never": "梯度裁剪的上限；0 表示不裁剪",
    "of every dropout in encoder and head": "编码器和任务头中所有 dropout 的概率",
    (
        "train matrices of this rank beside those of the encoder (LoRA), which takes less memory and disk, and the "
        "model that they stand on whenever they are loaded; 0: train the encoder"
    ): "LoRA 的秩：只训练编码器各线性层旁的低秩矩阵，节省显存和磁盘，加载时仍需要原模型；0 表示训练整个编码器",
    "micro-batches that a batch is computed in, to fit memory; it stays the same batch": (
        "一个 batch 分成几份计算，用于节省显存；等效 batch 不变"
    ),
    "train on batches of similar length, which has less padding but another order of examples": (
        "把长度相近的样本放进同一个 batch，减少填充；样本顺序会改变"
    ),
    (
        "attention in one operation, which takes less memory but draws other units for dropout, and has not been tried "
        "on a card"
    ): "用单个算子计算注意力，节省显存；dropout 的随机掩码不同，尚未在显卡上验证",
    (
        "learn each batch a second time with the word embeddings moved so far uphill (FGM, such as 1.0), which takes "
        "twice the time; 0: do not"
    ): "FGM 对抗训练的扰动大小，例如 1.0；训练时间加倍；0 表示不使用",
    (
        "weight of the divergence between two passes with other dropout (R-Drop, such as 1.0), which take twice the "
        "time and memory; 0: one pass"
    ): "R-Drop 中两次前向的 KL 散度的权重，例如 1.0；训练时间和显存加倍；0 表示不使用",
    "evaluate and keep the running mean of the weights with this decay (such as 0.999); 0: the weights themselves": (
        "评估并保存权重的滑动平均（EMA），此为衰减率，例如 0.999；0 表示不使用"
    ),
    (
        "learning rate of each layer as a share of that of the layer above it, the embeddings' being the lowest (such "
        "as 0.9); 1: the same for all"
    ): "逐层衰减的学习率：每一层的学习率与上一层之比，词向量层最低，例如 0.9；1 表示各层相同",
    "train on the development set too, for a last submission: nothing is evaluated, the last weights are kept": (
        "最后一次提交前把验证集也用于训练：不再评估，保留最后的权重"
    ),
    "end the run when it is clearly behind the finished runs beside --output_dir (median rule)": (
        "明显落后于 `--output_dir` 同级目录中已完成的实验时提前终止（中位数规则）"
    ),
    "of everything drawn at random": "随机种子",
    "steps between log lines": "每隔多少步打印一行日志",
    "steps between evaluations; 0: once an epoch": "每隔多少步评估一次；0 表示每个 epoch 一次",
    "folder for checkpoint, result.json and predictions": "检查点、`result.json` 和预测文件的输出目录",
    "start anew where --output_dir holds a training run": "`--output_dir` 中已有训练时从头开始",
    "keep the checkpoint with the best development score (default: true)": "保留验证集得分最高的检查点（默认：true）",
    (
        "minutes of training between checkpoints to go on from, which is what a kill loses at most; 0: after each step"
    ): "每训练多少分钟写一次用于续训的检查点，也就是被强行终止时最多损失的训练时间；0 表示每一步都写",
    "how much is logged": "日志的详细程度",
    "what to compute on (default: a GPU where there is one)": "计算设备（默认：有 GPU 时用 GPU）",
    (
        "of matrix products; weights and checkpoints stay fp32 (default: fp32, as published scores; "
        "the others need a GPU, tf32 and bf16 one of Ampere or later)"
    ): (
        "矩阵乘法的精度，权重和检查点始终为 fp32（默认：fp32，与公开得分一致；其余需要 GPU，tf32 和 bf16 需要 Ampere "
        "或更新的架构）"
    ),
    (
        "examples at a time in evaluation and prediction, fewer of long ones; scores do not depend on it "
        "(default: 64 on the CPU, on a GPU as many as fit)"
    ): "评估和预测时的 batch size，样本较长时自动减小；不影响得分（默认：CPU 上 64，GPU 上以显存为限）",
    (
        "give the blanks of an example their idioms by the best joint assignment, or greedily as earlier scripts do"
    ): "为一条样本的各个空选择成语的方式：联合求解最优分配，或与早期脚本相同的贪心分配",
    "tokens between the starts of two windows of one context": "同一篇原文相邻两个窗口起点之间的 token 数",
    "tokens a question is cut to": "问题的最大 token 数",
    "best starts and ends of a window that are combined": "每个窗口取得分最高的多少个起点和终点进行组合",
    "tokens of an answer at the most": "答案的最大 token 数",
    "write text in lower case (default: as the model's tokenizer does)": "把文本转为小写（默认：与模型的分词器一致）",
}
