// A line of JSON in, a line of JSON out, one after the other: {"id": 1, ...} -> {"id": 1, ...} or {"id": 1, "error": "..."}.
"use strict";

const readline = require("node:readline");

async function answer(handle) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const question = JSON.parse(line);
    let found;
    try {
      found = await handle(question);
    } catch (error) {
      found = { error: String(error && error.message ? error.message : error) };
    }
    process.stdout.write(JSON.stringify({ id: question.id, ...found }) + "\n");
  }
}

module.exports = { answer };
