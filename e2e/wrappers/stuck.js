// A worker in which a text "stuck" keeps Python busy for ever, as a tokenizer's expression without an end can.
addEventListener("message", ({ data }) => {
  if (data.texts?.[0] !== "stuck") return;
  for (;;); // this listener is the worker's first: nothing behind it runs any more
});
