// Every run's details, drawn when they are opened: the data is parsed at the first click.
const everyRun = (() => {
  let parsed;
  return () => (parsed ??= JSON.parse(document.getElementById("run-data").textContent));
})();

function show(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number" || Number.isInteger(value)) return String(value);
  return String(Number(value.toPrecision(6)));
}

function facts(title, values) {
  const table = element("table", { className: "facts" });
  for (const [name, value] of Object.entries(values)) {
    const text = value !== null && typeof value === "object" ? JSON.stringify(value) : show(value);
    const head = element("th", { scope: "row" }, name.replaceAll("_", " "));
    table.append(element("tr", {}, head, element("td", {}, text)));
  }
  return element("section", {}, element("h4", {}, title), table);
}

function numbers(title, heads, rows) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
  const body = element("tbody", {});
  for (const row of rows) {
    body.append(element("tr", {}, ...row.map((value) => element("td", {}, show(value)))));
  }
  const table = element("table", { className: "numbers" }, element("thead", {}, head), body);
  const box = element("div", { className: "tall", tabIndex: 0 }, table);
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", title);
  return element("section", {}, element("h4", {}, title), box);
}

function drawn(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function curve(points) {
  const [width, height, left, right, top, bottom] = [560, 190, 52, 12, 10, 26];
  const low = Math.min(0, ...points.score);
  const high = Math.max(low + 1, ...points.score);
  const last = points.update.at(-1) || 1;
  const x = (value) => left + ((width - left - right) * value) / last;
  const y = (value) => top + (height - top - bottom) * (1 - (value - low) / (high - low));
  const picture = drawn("svg", {
    viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `learning curve: ${show(points.score[0])} at update ${points.update[0]}, ` +
      `${show(points.score.at(-1))} at update ${last}`,
  });
  for (const value of [low, (low + high) / 2, high]) {
    picture.append(
      drawn("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "grid" }),
      drawn("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(1)),
    );
  }
  for (const [value, anchor] of [[0, "start"], [last, "end"]]) {
    const text = value ? `${value.toLocaleString("en")} updates` : "0";
    picture.append(drawn("text", { x: x(value), y: height - 6, "text-anchor": anchor }, text));
  }
  const path = points.update.map((update, i) => `${x(update)},${y(points.score[i])}`).join(" ");
  picture.append(drawn("polyline", { points: path, class: "curve" }));
  points.update.forEach((update, i) => {
    const dot = drawn("circle", { cx: x(update), cy: y(points.score[i]), r: 2.5, class: "dot" });
    dot.append(drawn("title", {}, `update ${update}: ${show(points.score[i])}`));
    picture.append(dot);
  });
  const figure = element("figure", {}, picture);
  figure.append(element("figcaption", {}, "Score during training; the final score is not on it."));
  return element("section", {}, element("h4", {}, "Learning curve"), figure);
}

function details(run, link) {
  const { shared } = everyRun();
  const seconds = run.timing.total_s;
  const took = seconds === undefined ? "" : ` after ${show(Number(seconds.toPrecision(3)))} s`;
  const title = run.error ? `Failed${took}: ${run.error.type}: ${run.error.message}` : `Finished${took}`;
  const ended = element("p", { className: run.error ? "bad" : "ended" }, title);
  const place = element("p", { className: "quiet" }, "Files: ", element("code", {}, run.path));
  place.append(" · ", element("a", { href: link }, "link to this run"));
  const panel = element("div", { className: "run" }, ended);
  for (const resume of run.resumes) {
    const how = [resume.exact ? "exactly" : "inexactly", ...(resume.notes ?? [])].join("; ");
    panel.append(element("p", {}, `Interrupted, and resumed at update ${resume.update}, ${how}.`));
  }
  for (const warning of run.warnings) {
    const what = `${warning.name.replaceAll("_", " ")} (by update ${warning.update})`;
    panel.append(element("p", { className: "bad" }, `${what}: ${warning.text}`));
  }
  panel.append(place);
  if (run.error?.traceback) panel.append(element("pre", {}, run.error.traceback));
  const grid = element("div", { className: "grid" });
  if (run.curve.update?.length) {
    const names = Object.keys(run.curve);
    const rows = run.curve.update.map((_, i) => names.map((name) => run.curve[name][i]));
    if (run.curve.score) grid.append(curve(run.curve));
    grid.append(numbers("Evaluations during training", names.map((n) => n.replaceAll("_", " ")), rows));
  }
  if (run.returns) {
    const seeds = shared[run.reset_seeds];
    const rows = run.returns.map((value, i) => [i + 1, value, run.lengths[i], seeds[i]]);
    const left = run.episodes > rows.length ? `, the first ${rows.length} of them here` : "";
    grid.append(numbers(
      `Final evaluation: ${run.episodes} episode${run.episodes === 1 ? "" : "s"}${left}`,
      ["episode", "return", "length", "reset seed"], rows,
    ));
  }
  const stack = run.stack.length > 1 ? { "trained together with seeds": run.stack.join(", ") } : {};
  const { measures, ...final } = run.final;
  grid.append(facts("Result", { ...final, ...measures, ...stack }));
  grid.append(facts("Timing", run.timing));
  grid.append(facts("Data", shared[run.dataset]));
  grid.append(facts("Versions", shared[run.versions]));
  const settings = element("pre", {}, JSON.stringify(shared[run.settings], null, 2));
  grid.append(element("section", {}, element("h4", {}, "Settings"), settings));
  panel.append(grid);
  return panel;
}

function openRun(row, open) {
  const button = row.querySelector("button.more");
  const [, opened] = withDetails(row);
  button.setAttribute("aria-expanded", String(open));
  if (!open) opened?.remove();
  if (!open || opened) return;
  const cell = element("td", { colSpan: row.cells.length });
  cell.append(details(everyRun().runs[row.id], `#${row.id}`));
  row.after(element("tr", { className: "opened" }, cell));
}

for (const row of document.querySelectorAll("tr[id^=run-]")) {
  const name = row.cells[0].textContent.trim();
  const button = element("button", { type: "button", className: "more" }, name);
  button.setAttribute("aria-expanded", "false");
  button.title = "every episode, curve, settings, versions";
  row.cells[0].replaceChildren(button);
  button.addEventListener("click", () => {
    openRun(row, button.getAttribute("aria-expanded") === "false");
  });
}

function openLinked() {
  const row = location.hash.startsWith("#run-") && document.getElementById(location.hash.slice(1));
  if (!row) return;
  filters.reset();
  openRun(row, true);
  row.scrollIntoView();
}
window.addEventListener("hashchange", openLinked);
openLinked();
