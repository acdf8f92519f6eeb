"""What the checkers say, in Chinese, for the chapters that have a Chinese edition.

Both editions have the same code and the same outputs, so these checkers say everything twice.
"""

from __future__ import annotations

import re

# A name in braces stands for any text; of {said} the Chinese is looked up in turn.
SHARED = {
    "Correct.": "正确。",
    "Not attempted yet: put your code in place of `raise NotImplementedError`.": (
        "还没有做：把 `raise NotImplementedError` 换成你的代码。"
    ),
    "Not yet. {said} (So it is in {call}; with other inputs it went well.)": (
        "还不对。{said}（在 {call} 中是这样；换别的输入没有问题。）"
    ),
    "Not yet. {said}": "还不对。{said}",
    "This is {a} {type}: give the checker your function.": (
        "这里给的是 {type}；要给检查函数的，是你的函数。"
    ),
    "Your line {line} raised {error}": "你的代码运行出错：哪一行、什么错误，见上面的英文。",
    "It raised {error}": "运行出错：什么错误，见上面的英文。",
    "It returns None: is the `return` missing?": "返回的是 None：是不是漏了 `return`？",
    "It returns {a} {type}, not a tensor.": "返回的是 {type}，不是张量。",
    "It returns {a} {type}, not a number.": "返回的是 {type}，不是数。",
    "It returns {a} {type}. Return {count} results.": "返回的是 {type}；应返回 {count} 个结果。",
    "The result lies on {there}, the inputs on {here}.": "结果在 {there} 上，输入在 {here} 上。",
    "The shape is {shape}, but should be {right}.": "形状是 {shape}，应为 {right}。",
    "The dtype is {dtype}, but should be {right}.": "dtype 是 {dtype}，应为 {right}。",
    "There is NaN in the result.": "结果里有 NaN。",
    "{call} is {value}, not a whole number: it should be an int.": (
        "{call} 得到 {value}，不是整数：应为 int。"
    ),
    "{call} is {value}, but should be {right}.": "{call} 得到 {value}，应为 {right}。",
}
CHAPTERS = {
    "attention": {
        "Forbidden keys get the weight and permitted ones none: True means 'may attend'.": (
            "不许看的键得到了权重，可以看的却没有：True 表示“可以看”。"
        ),
        "Forbidden weights are set to 0 after the softmax, so a row no longer sums to 1: set their "
        "scores to -inf before it.": (
            "不许看的权重是在 softmax 之后设为 0 的，所以那一行的总和不再是 1："
            "应在 softmax 之前把它们的分数设为 -inf。"
        ),
        "The row in which no key is permitted is NaN: 0/0. Its weights should be 0.": (
            "没有一个键可以看的那一行是 NaN：0/0。它的权重应为 0。"
        ),
        "A row does not sum to 1: is the softmax over the keys, and over the permitted only?": (
            "有一行的总和不是 1：softmax 是对各个键做的吗？是不是只对可以看的键做？"
        ),
        "A forbidden key has weight.": "有一个不许看的键得到了权重。",
        "The row in which no key is permitted should be zero; yours has weight.": (
            "没有一个键可以看的那一行应全是零，你的却有权重。"
        ),
        "The weights of a row sum to 1, but are not proportional to exp(score).": (
            "每一行的权重总和是 1，但不与 exp(分数) 成比例。"
        ),
        "The scores are not divided by sqrt(d), here sqrt({d}).": (
            "分数没有除以 sqrt(d)，这里是 sqrt({d})。"
        ),
        "The scores are divided by d, not by its square root.": (
            "分数除以的是 d，而不是 d 的平方根。"
        ),
        "A low temperature makes yours softer: divide by it.": (
            "你的结果，温度越低权重反而越平均：要除以温度。"
        ),
        "The temperature has no effect.": "温度没有起作用。",
        "The weights of a key sum to 1 over the queries: is the softmax over the keys?": (
            "同一个键的权重，对各个查询求和得 1：softmax 是对各个键做的吗？"
        ),
        "The result is not the weighted average of the values that it should be.": (
            "结果不是应得的那个值的加权平均。"
        ),
        "Queries should be the rows, keys the columns; yours are the other way round.": (
            "行应是查询，列应是键；你的正好相反。"
        ),
        "The tanh is missing: without it the query adds the same to every key's score.": (
            "漏了 tanh：没有它，查询给每个键的分数加上的都一样。"
        ),
        "Query and key are multiplied; this score adds them.": (
            "查询和键相乘了；这种打分是把它们相加。"
        ),
        "W belongs to the query and U to the key.": "W 用于查询，U 用于键。",
        "W q is sum over the columns of W: use W transposed when q is a row.": (
            "W q 是对 W 的各列求和：q 是行时，要用 W 的转置。"
        ),
        "The scores are not v . tanh(W q + U k).": "分数不是 v . tanh(W q + U k)。",
        "{call} is inverted: True means 'may attend'.": "{call} 反了：True 表示“可以看”。",
        "In {call} a query sees keys later than its own.": (
            "在 {call} 中，有的查询看到了比自己靠后的键。"
        ),
        "In {call} a query sees up to {most} keys, its own included; yours do not.": (
            "在 {call} 中，一个查询最多看 {most} 个键，自己的也算在内；你的不是这样。"
        ),
        "{call} is aligned differently: the last query sees the last key.": (
            "{call} 没有对齐：最后一个查询应看到最后一个键。"
        ),
    },
}


def in_chinese(said: str, chapter: str) -> str | None:
    """Return what a checker of a chapter said in Chinese; None where there is no Chinese."""
    if chapter not in CHAPTERS:
        return None
    # The shared ones first: "Not yet. x is inverted" is no call named "Not yet. x".
    for english, words in (SHARED | CHAPTERS[chapter]).items():
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(english))
        if match := re.fullmatch(pattern, said, re.DOTALL):
            parts = match.groupdict()
            if "said" in parts:
                parts["said"] = in_chinese(parts["said"], chapter)
            if None not in parts.values():
                return words.format(**parts)
    return None
