// What the live figures say, in Chinese: loaded on Chinese pages, before live.js. A figure writes
// English; each text, and each name that is heard, is replaced as soon as it stands in the page. A
// rule is the English and the Chinese; {} stands for a number or a name, in the same order in both.
(function () {
  "use strict";

  const RULES = [
    // Chapter 1: the translator of dates.
    ["A date in Chinese ", "一个中文日期 "],
    ["Another date", "换一个日期"],
    ["The network writes: ", "网络写出："],
    ["Right.", "对。"],
    ["Wrong: it is {}.", "错：应为 {}。"],
    ["There is no such day, so nothing is right.", "没有这一天，所以没有正确答案。"],
    ["It has learned year, month and day, as in 2041年9月26日 or 2041/9/26; for anything else nothing is right.",
      "它学过的是年、月、日，如 2041年9月26日 或 2041/9/26；别的写法都没有正确答案。"],
    ["The network has only ever read these characters: {}", "这个网络只读过这些字符：{}"],
    ["“{}” looks at ", "“{}”看着 "],
    [" (place {}): {}", "（第 {} 位）：{}"],
    ["Weight: 0 ", "权重：0 "],
    ["Columns: the Chinese that is read, from start to end sign. Rows: the English that comes next.",
      "列：读到的中文，从开头标记到结尾标记。行：接下来写的英文。"],
    ["the start sign", "开头标记"],
    ["the end sign", "结尾标记"],
    ["start", "开头"],
    ["end", "结尾"],
    // Chapter 1: the square root.
    ["features d:", "特征数 d："],
    ["{} features", "{} 个特征"],
    ["temperature τ:", "温度 τ："],
    ["New draw", "重新抽取"],
    ["Not divided:", "未除以 √d："],
    ["Divided by √d:", "除以 √d："],
    ["Largest of {} weights: {}. Size of the derivatives: below {}. Next to nothing reaches the scores.",
      "{} 个权重中最大的：{}。导数的大小：不到 {}。几乎没有梯度回到分数。"],
    ["Largest of {} weights: {}. Size of the derivatives: {}. ", "{} 个权重中最大的：{}。导数的大小：{}。"],
    ["Largest of {} weights: {}. Size of the derivatives: {}. Next to nothing reaches the scores.",
      "{} 个权重中最大的：{}。导数的大小：{}。几乎没有梯度回到分数。"],
    ["Largest of {} weights: {}. Size of the derivatives: {}. The softmax hardly prefers any key.",
      "{} 个权重中最大的：{}。导数的大小：{}。softmax 几乎不偏向任何键。"],
    ["Largest of {} weights: {}. ", "{} 个权重中最大的：{}。"],
    ["Largest of {} weights: {}. Next to nothing reaches the scores.",
      "{} 个权重中最大的：{}。几乎没有梯度回到分数。"],
    ["Largest of {} weights: {}. The softmax hardly prefers any key.",
      "{} 个权重中最大的：{}。softmax 几乎不偏向任何键。"],
    // All.
    ["This figure cannot run here: {}.", "这张图在这里无法运行：{}。"],
  ].map(([english, chinese]) => {
    const parts = english.split("{}").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    return [new RegExp(`^${parts.join("(.+?)")}$`, "s"), chinese];
  });

  function chinese(text) {
    for (const [pattern, said] of RULES) {
      const found = pattern.exec(text);
      if (!found) continue;
      let part = 0;
      return said.replace(/\{\}/g, () => found[++part]);
    }
    return text;
  }

  const HEARD = ["aria-label", "aria-valuetext", "placeholder", "title"];

  function name(element) {
    for (const attribute of HEARD) {
      const said = element.getAttribute(attribute);
      if (said && chinese(said) !== said) element.setAttribute(attribute, chinese(said));
    }
  }

  function write(node) {
    if (node.nodeType === Node.TEXT_NODE) {
      if (chinese(node.data) !== node.data) node.data = chinese(node.data);
      return;
    }
    if (node.nodeType !== Node.ELEMENT_NODE) return;
    name(node);
    node.childNodes.forEach(write);
  }

  // The changes of an observer are heard before the next picture is drawn.
  window.attnbookChinese = (figure) => {
    write(figure);
    new MutationObserver((changes) => changes.forEach(({ type, target, addedNodes }) => {
      if (type === "attributes") name(target);
      else if (type === "characterData") write(target);
      else addedNodes.forEach(write);
    })).observe(figure, { subtree: true, childList: true, characterData: true, attributeFilter: HEARD });
  };
})();
