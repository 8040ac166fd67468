// The page to type into. Whatever users and models write goes through textContent alone: it is never read as HTML.
"use strict";

const isChinese = navigator.language.startsWith("zh");
const say = (english, chinese) => (isChinese ? chinese : english);
const find = (id) => document.getElementById(id);
const percent = (x) => `${(100 * x).toFixed(2)} %`;
// Rows that are shown of many classes or texts.
const MOST_ROWS = 10;

let models = [];
let current = null; // the model that is chosen
let asked = 0; // requests so far: an answer that is late is not shown

function element(name, settings, ...children) {
  const made = Object.assign(document.createElement(name), settings);
  made.append(...children);
  return made;
}

function meaning(form) {
  if (Array.isArray(form)) return say("one a line", "每行一个");
  return form === "integer" ? say("a number", "整数") : "";
}

// A field for each text, number or list of texts of a form; objects in it become fields of their own.
function build(form, path) {
  return Object.entries(form).flatMap(([name, kind]) => {
    const whole = [...path, name];
    if (typeof kind === "object" && !Array.isArray(kind)) return build(kind, whole);
    const id = `field-${whole.join("-")}`;
    const control =
      kind === "integer"
        ? element("input", { id, type: "number", step: "1" })
        : element("textarea", { id, rows: name === "context" || name === "content" || Array.isArray(kind) ? 4 : 2 });
    control.path = whole;
    control.holds = kind;
    const label = element("span", { className: "name" }, whole.join("."), " ");
    label.append(element("span", { className: "quiet" }, meaning(kind)));
    return [element("label", { htmlFor: id }, label, control)];
  });
}

const controls = () => [...find("fields").querySelectorAll("textarea, input")];

function read() {
  const input = {};
  for (const { path, holds, value } of controls()) {
    const holder = path.slice(0, -1).reduce((object, name) => (object[name] ??= {}), input);
    const lines = () => value.split("\n").filter((line) => line.trim());
    holder[path.at(-1)] = Array.isArray(holds) ? lines() : holds === "integer" ? Math.trunc(Number(value)) : value;
  }
  return input;
}

function fill(input) {
  for (const control of controls()) {
    const value = control.path.reduce((object, name) => object?.[name], input) ?? "";
    control.value = Array.isArray(value) ? value.join("\n") : value;
  }
}

function choose(name) {
  current = models.find((model) => model.name === name);
  find("model").value = name;
  find("about").textContent = `${current.task}, ${current.kind.replace("_", " ")}`;
  find("fields").replaceChildren(...build(current.fields, []));
  asked += 1;
  show();
}

function show(...parts) {
  find("result").replaceChildren(...parts);
  find("submit").disabled = false;
  find("status").textContent = "";
}

function refuse(text) {
  show(element("p", { className: "error", role: "alert" }, text));
}

// Rows of [text, probability, whether it is the answer].
function probabilityTable(name, rows) {
  const table = element("table");
  const heads = [name, "", say("probability", "概率")];
  const head = element("tr");
  head.append(...heads.map((text, i) => element("th", { scope: "col", className: i === 2 ? "number" : "" }, text)));
  table.append(element("thead", {}, head));
  const body = element("tbody");
  for (const [text, probability, isFirst] of rows) {
    const meter = element("meter", { min: 0, max: 1, value: probability, ariaHidden: "true" });
    body.append(
      element(
        "tr",
        { className: isFirst ? "first" : "" },
        element("th", { scope: "row" }, text),
        element("td", { className: "bar" }, meter),
        element("td", { className: "number" }, percent(probability)),
      ),
    );
  }
  table.append(body);
  return table;
}

const headline = (text) => element("p", { className: "answer" }, text);

// The text with the characters from begin to end marked. Places count characters of Unicode, JavaScript half of some.
function marked(text, begin, end) {
  const letters = Array.from(text);
  const part = (from, to) => letters.slice(from, to).join("");
  return element("p", { className: "passage" }, part(0, begin), element("mark", {}, part(begin, end)), part(end));
}

const byKind = {
  classification(output) {
    const rows = Object.entries(output.probabilities)
      .map(([name, probability]) => [name, probability, name === output.name])
      .sort((one, other) => other[1] - one[1] || other[2] - one[2]);
    const parts = [headline(output.name)];
    if (output.label !== output.name) parts.push(element("p", { className: "quiet" }, say(`label ${output.label}`, `标签 ${output.label}`)));
    parts.push(probabilityTable(say("class", "类别"), rows.slice(0, MOST_ROWS)));
    if (rows.length > MOST_ROWS) {
      const left = rows.length - MOST_ROWS;
      parts.push(element("p", { className: "quiet" }, say(`and ${left} other classes`, `其余 ${left} 个类别从略`)));
    }
    return parts;
  },
  multiple_choice(output, input) {
    const rows = output.probabilities.map((probability, i) => [input.choice[i] ?? "", probability, i === output.index]);
    return [headline(output.answer), probabilityTable(say("choice", "选项"), rows)];
  },
  cloze(output, input) {
    return output.blanks.flatMap((blank) => [
      element("h3", {}, `${blank.tag}: ${blank.answer}`),
      probabilityTable(
        say("candidate", "候选"),
        blank.probabilities.map((probability, i) => [input.candidates[i] ?? "", probability, i === blank.index]),
      ),
    ]);
  },
  span(output, input) {
    const parts = [headline(output.answer || say("(no answer)", "（无答案）"))];
    if (output.begin !== null) parts.push(marked(input.context, output.begin, output.end));
    const rows = output.n_best.slice(0, MOST_ROWS).map((one, i) => [one.text, one.probability, i === 0]);
    parts.push(probabilityTable(say("text", "答案"), rows));
    return parts;
  },
};

async function ask(event) {
  event.preventDefault();
  const mine = ++asked;
  const model = current;
  const input = read();
  find("submit").disabled = true;
  find("status").textContent = say("Predicting…", "正在预测…");
  try {
    const answer = await fetch(`models/${encodeURIComponent(model.name)}/predict`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ input }),
    });
    const content = await answer.json();
    if (mine !== asked) return;
    if (answer.ok) show(...byKind[model.kind](content.output, input));
    else refuse(content.error);
  } catch (error) {
    if (mine === asked) refuse(say(`The server gave no answer (${error.message}).`, `服务器没有应答（${error.message}）。`));
  }
}

async function begin() {
  document.documentElement.lang = isChinese ? "zh-CN" : "en";
  if (isChinese) for (const one of document.querySelectorAll("[data-zh]")) one.textContent = one.dataset.zh;
  find("form").addEventListener("submit", ask);
  find("model").addEventListener("change", (event) => choose(event.target.value));
  find("example").addEventListener("click", () => fill(current.example));
  models = (await (await fetch("models")).json()).models;
  find("model").append(...models.map(({ name, task }) => element("option", { value: name }, `${name} (${task})`)));
  find("choose").hidden = models.length < 2;
  choose(models[0].name);
}

begin().catch((error) => refuse(error.message));
