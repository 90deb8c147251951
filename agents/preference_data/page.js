"use strict";

const LETTERS = "abcdefghi";  // nine answers at most have a key; t, s and u are commands
const find = (id) => document.getElementById(id);

let annotator = sessionStorage.getItem("annotator") || "";
let item = null;      // what is being ranked
let picked = [];      // numbers of answers on the page, grouped by rank: [[2], [0, 1]]
let tie = false;      // whether the next pick shares the last rank
let started = 0;
let busy = false;

function show(section) {
  for (const id of ["sign", "work", "done"]) find(id).hidden = id !== section;
  find("who").hidden = section === "sign";
  find("name").textContent = annotator;
}

function say(text) { find("message").textContent = text; }

// Ranks as the server has them: 1, and for each group one more than there are answers before it.
function ranks() {
  const result = item.answers.map(() => null);
  let before = 0;
  for (const group of picked) {
    for (const number of group) result[number] = before + 1;
    before += group.length;
  }
  return result;
}

function draw() {
  const marks = ranks();
  const missing = marks.filter((rank) => rank === null).length;
  [...find("answers").children].forEach((entry, number) => {
    const button = entry.firstChild;
    button.setAttribute("aria-pressed", String(marks[number] !== null));
    button.querySelector(".rank").textContent = marks[number] === null ? "" : String(marks[number]);
  });
  find("confirm").disabled = busy || missing > 0;
  find("tie").disabled = busy || picked.length === 0 || missing === 0;
  if (find("tie").disabled) tie = false;
  find("tie").setAttribute("aria-pressed", String(tie));
  find("clear").disabled = busy || picked.length === 0;
}

function pick(number) {
  if (busy || number >= item.answers.length) return;
  const place = picked.findIndex((group) => group.includes(number));
  if (place >= 0) {
    picked[place] = picked[place].filter((other) => other !== number);
    picked = picked.filter((group) => group.length > 0);
  } else if (tie && picked.length > 0) {
    picked[picked.length - 1].push(number);
  } else {
    picked.push([number]);
  }
  tie = false;
  draw();
}

function take(state) {
  const total = state.ranked + state.skipped + state.left;
  find("bar").max = total;
  find("bar").value = state.ranked + state.skipped;
  const skipped = state.skipped ? `, ${state.skipped} skipped` : "";
  find("progress").textContent = `${state.ranked} of ${total} ranked${skipped}`;
  find("total").textContent = find("progress").textContent + ".";
  find("undo").disabled = find("undo-done").disabled = !state.can_undo;
  item = state.item;
  picked = [];
  tie = false;
  if (item === null) { show("done"); return; }
  find("prompt").textContent = item.prompt;
  const list = find("answers");
  list.replaceChildren();
  item.answers.forEach((text, number) => {
    const entry = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "answer";
    for (const [name, content] of [["letter", LETTERS[number] || ""], ["text", text], ["rank", ""]]) {
      const part = document.createElement("span");
      part.className = name;
      part.textContent = content;  // never as markup
      button.append(part);
    }
    button.addEventListener("click", () => pick(number));
    entry.append(button);
    list.append(entry);
  });
  if (item.ranks !== null) {
    const order = [...new Set(item.ranks)].sort((a, b) => a - b);
    picked = order.map((rank) => item.ranks.flatMap((other, number) => (other === rank ? [number] : [])));
  }
  started = performance.now();
  show("work");
  draw();
}

// Whether the server has done what it was asked for. Nothing on the page changes before it has said so.
async function ask(what, body) {
  if (busy) return false;
  busy = true;
  if (item !== null) draw();
  let state = null, problem = "";
  try {
    const answer = await fetch(`/api/${what}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ annotator, ...body }),
    });
    const content = await answer.json();
    if (answer.ok) state = content; else problem = String(content.detail);
  } catch {
    problem = "The server does not answer. This is not saved yet; try again when it runs.";
  }
  busy = false;
  say(problem);
  if (state !== null) take(state); else if (item !== null) draw();
  return state !== null;
}

function judge(given) {
  const seconds = (performance.now() - started) / 1000;
  return ask("judge", { item: item.item, round: item.round, ranks: given, seconds });
}

const actions = {
  confirm: () => judge(ranks()),
  tie: () => { tie = !tie; draw(); },
  clear: () => { picked = []; draw(); },
  skip: () => judge(null),
  undo: () => ask("undo", {}),
};
for (const [id, action] of Object.entries(actions)) find(id).addEventListener("click", action);
find("undo-done").addEventListener("click", actions.undo);

const keys = { Enter: "confirm", Backspace: "clear", t: "tie", s: "skip", u: "undo" };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.target.tagName === "INPUT") return;
  if (!find("done").hidden && event.key === "u" && !find("undo-done").disabled) { actions.undo(); return; }
  if (find("work").hidden) return;
  const number = LETTERS.indexOf(event.key.toLowerCase());
  if (number >= 0) {
    pick(number);
  } else if (keys[event.key] && !find(keys[event.key]).disabled) {
    event.preventDefault();  // Enter would also press the button that has the focus
    actions[keys[event.key]]();
  }
});

find("sign").addEventListener("submit", async (event) => {
  event.preventDefault();
  annotator = find("annotator").value.trim();
  if (await ask("next", {})) sessionStorage.setItem("annotator", annotator);
});
find("leave").addEventListener("click", () => {
  sessionStorage.removeItem("annotator");
  annotator = "";
  item = null;
  say("");
  show("sign");
  find("annotator").focus();
});

show("sign");
if (annotator) ask("next", {}); else find("annotator").focus();
