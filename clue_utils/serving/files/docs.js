// Shows, for each model that is served, a command to try. Everything is set as text.
"use strict";

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

async function begin() {
  const { models } = await (await fetch("models")).json();
  for (const model of models) {
    const address = new URL(`models/${encodeURIComponent(model.name)}/predict`, location.href);
    const title = document.createElement("h3");
    title.textContent = `${model.name} (${model.task})`;
    const command = document.createElement("pre");
    command.textContent = `curl ${address} -d ${quote(JSON.stringify({ inputs: [model.example] }))}`;
    document.getElementById("models").append(title, command);
  }
}

begin().catch((error) => (document.getElementById("models").textContent = error.message));
