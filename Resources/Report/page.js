"use strict";
(() => {
  const shared = JSON.parse(document.getElementById("shared").textContent);
  const classes = shared.classes;
  const many = shared.cases > 1;
  const list = document.getElementById("cases");
  const overview = document.getElementById("overview");
  const article = document.getElementById("case");
  const cards = [...list.children].map((item, index) => ({
    item, index, name: item.dataset.name, score: Number(item.dataset.score),
    text: [...item.querySelectorAll(".name, li")].map((part) => part.textContent).join(" ").toLowerCase(),
  }));
  const byName = new Intl.Collator("en", { numeric: true }).compare;
  const number = (value) => {
    if (value === null || value === undefined) return "";
    const size = Math.abs(value);
    if (size >= 1000) return Math.round(value).toString();
    return size !== 0 && size < 0.001 ? value.toExponential(1) : Number(value.toPrecision(3)).toString();
  };
  // In tables: three digits, so that decimal points stand below each other.
  const digits = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size >= 999.5 || size === 0) return Math.round(value).toString();
    return size < 0.001 ? value.toExponential(2) : value.toPrecision(3);
  };
  const counted = (count, one, more = `${one}s`) => `${count} ${count === 1 ? one : more}`;

  function make(tag, given = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(given)) {
      if (value === null || value === undefined) continue;
      if (key === "class") element.className = value;
      else element.setAttribute(key, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  // A table whose columns sort by the buttons in their heads. `rows` hold the values to sort by; `show` makes a cell.
  function table(caption, columns, rows, chosen, changed) {
    const body = make("tbody");
    const heads = columns.map((column) => {
      const button = make("button", { type: "button" }, column.title);
      const head = make("th", { scope: "col", class: column.text ? "text" : null }, button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending" || (!head.hasAttribute("aria-sort") && !column.text);
        sort(column.key, down ? "descending" : "ascending");
        if (changed) changed(column.key, down ? "descending" : "ascending");
      });
      return head;
    });
    const lines = rows.map((row) => {
      const cells = columns.map((column, index) => {
        const shown = column.show ? column.show(row) : digits(row[column.key]);
        const given = index === 0 ? { scope: "row" } : { class: column.text ? "text" : null };
        const cell = make(index === 0 ? "th" : "td", given);
        cell.append(...[shown].flat());
        return cell;
      });
      return { row, line: make("tr", {}, ...cells) };
    });
    function sort(key, order) {
      const index = columns.findIndex((column) => column.key === key);
      if (index < 0) return;
      const sign = order === "descending" ? -1 : 1;
      heads.forEach((head, at) => (at === index ? head.setAttribute("aria-sort", order) : head.removeAttribute("aria-sort")));
      lines.sort((a, b) => {
        const [x, y] = [a.row[key], b.row[key]];
        const [noX, noY] = [x, y].map((value) => value === null || value === undefined || value === "");
        if (noX || noY) return noX - noY;
        return sign * (columns[index].text ? byName(x, y) : x - y);
      });
      body.append(...lines.map((one) => one.line));
    }
    body.append(...lines.map((one) => one.line));
    if (chosen) sort(chosen.key, chosen.order);
    const element = make("table", {}, make("caption", {}, caption), make("thead", {}, make("tr", {}, ...heads)), body);
    const scroll = make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": caption }, element);
    const search = make("input", { type: "search", autocomplete: "off", placeholder: "name or code" });
    const only = make("input", { type: "checkbox" });
    function filter() {
      const words = search.value.trim().toLowerCase();
      for (const one of lines) {
        one.line.hidden = (only.checked && !one.row.marks.length) || !one.line.textContent.toLowerCase().includes(words);
      }
    }
    search.addEventListener("input", filter);
    only.addEventListener("change", filter);
    const marked = rows.some((row) => row.marks && row.marks.length);
    const tools = make("p", { class: "filter" }, make("label", {}, "Search structures ", search),
      marked ? make("label", { class: "tick" }, only, " only unusual") : null);
    return [rows.length > 12 ? tools : null, scroll];
  }

  const swatch = (row) => {
    const box = make("span", { class: "swatch", "aria-hidden": "true" });
    box.style.background = row.color;
    const badges = (row.marks || []).map((mark) => make("span", { class: "flag" }, `▲ ${mark}`));
    if (row.edge) badges.push(make("span", { class: "flag edge" }, "at the edge of the image"));
    return [box, make("span", { class: "label" }, row.name), badges.length ? make("span", { class: "badges" }, ...badges) : ""];
  };
  const coded = (row) => [row.meaning, make("span", { class: "code" }, row.code)];
  const whole = (key) => (row) => String(row[key]);

  function pairsList(pairs) {
    const given = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
    return make("dl", {}, ...given.flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)]));
  }

  const gib = (bytes) => (bytes ? `${number(bytes / 2 ** 30)} GiB` : null);

  function facts(data) {
    const run = data.run || {};
    const stages = Object.entries(run.stages || {}).map(([name, seconds]) => `${name} ${number(seconds)} s`).join(", ");
    const models = (run.models || []).map((model) =>
      make("div", {}, model.name, model.located ? " (located)" : null, model.licence ? ` (${model.licence})` : "",
        model.sha256 ? make("span", { class: "code" }, `SHA-256 ${model.sha256}`) : null));
    const holder = make("div", {}, ...models);
    return pairsList([
      ["Image", data.images.join(", ")],
      ["Modality", data.modality],
      ["Voxels", data.size ? data.size.join(" × ") : null],
      ["Spacing", data.spacing ? `${data.spacing.map(number).join(" × ")} mm` : null],
      ["Axes towards", data.orientation],
      ["Result", data.outputs.join(", ")],
      [models.length > 1 ? "Models" : "Model", models.length ? holder : null],
      ["Options", run.options],
      ["Device", run.device],
      ["Started", run.started ? run.started.replace("T", " ").replace("+00:00", " UTC") : null],
      ["Time", run.seconds ? `${number(run.seconds)} s${stages ? ` (${stages})` : ""}` : null],
      ["Memory, at most", gib(run.memory_bytes)],
      ["GPU memory, at most", gib(run.gpu_memory_bytes)],
      ["Versions", Object.entries(run.versions || {}).map(([name, version]) => `${name} ${version}`).join(", ")],
    ]);
  }

  function enlarge(image) {
    const close = make("button", { type: "button" }, "Close");
    const large = make("img", { src: image.src, alt: "", width: image.width, height: image.height });
    const dialog = make("dialog", { "aria-label": image.alt }, large, make("p", {}, image.alt, close));
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }

  function pictures(data, card) {
    const shown = data.pictures.map((one) => {
      const source = `data:image/webp;base64,${one.data}`;
      const image = make("img", { src: source, alt: one.text, width: one.width, height: one.height });
      const button = make("button", { type: "button", "aria-haspopup": "dialog", title: "Enlarge" }, image);
      button.addEventListener("click", () => enlarge(image));
      return make("figure", {}, button, make("figcaption", {}, one.text));
    });
    if (shown.length) return [make("div", { class: "pictures" }, ...shown)];
    const sheet = card.item.querySelector("img");
    if (!sheet) return [];
    const alt = `${sheet.alt}, small`;
    const figure = make("figure", {}, make("img", { src: sheet.src, alt, width: sheet.width, height: sheet.height }));
    const link = make("a", { href: data.page }, "Larger pictures");
    return [make("div", { class: "pictures small" }, figure), make("p", {}, link, " are on a page of this case alone.")];
  }

  const KINDS = { volume: "Volume", missing: "Missing", asymmetry: "Asymmetry", edge: "Cut off", confidence: "Unsure" };

  function structures(data, chosen, name) {
    const marked = new Map();
    for (const one of data.findings) {
      for (const name of one.structures) marked.set(name, [...(marked.get(name) || []), KINDS[one.kind]]);
    }
    const rows = data.rows.map(([at, volume, surface, mean, deviation, edge, voxels, confidence]) => {
      const marks = marked.get(classes[at].name) || [];
      return { ...classes[at], volume, surface, mean, deviation, voxels, confidence, marks, edge: edge && !marks.includes(KINDS.edge) };
    });
    const image = rows.some((row) => row.mean !== null);
    const unit = data.modality === "CT" ? ", HU" : "";
    const columns = [
      { key: "name", title: "Structure", text: true, show: swatch },
      { key: "volume", title: "Volume, mL" },
      many ? { key: "median", title: "Median, mL" } : null,
      { key: "voxels", title: "Voxels", show: whole("voxels") },
      { key: "surface", title: "Surface, mm²" },
      image ? { key: "mean", title: `Mean${unit}` } : null,
      image ? { key: "deviation", title: "Std. dev." } : null,
      rows.some((row) => row.confidence !== null) ? { key: "confidence", title: "Confidence" } : null,
      rows.some((row) => row.code) ? { key: "code", title: "Code", text: true, show: coded } : null,
    ].filter(Boolean);
    const changed = (key, order) => history.replaceState(null, "", address(name, key, order));
    return table(counted(rows.length, "structure was found", "structures were found"), columns, rows, chosen, changed);
  }

  const address = (name, key, order) =>
    `#case=${encodeURIComponent(name)}${key ? `&sort=${encodeURIComponent(key)}&order=${order}` : ""}`;

  // The first findings, and the rest folded.
  function unusual(findings) {
    if (!findings.length) return [];
    const lines = findings.map((one) => make("li", {}, make("b", {}, `▲ ${KINDS[one.kind]}`), one.text));
    const all = lines.length <= 8 ? lines : lines.slice(0, 6);
    const rest = lines.slice(all.length);
    return [
      make("h2", {}, "Unusual"),
      make("ul", { class: "findings" }, ...all),
      rest.length ? make("details", {}, make("summary", {}, `${rest.length} more`), make("ul", { class: "findings" }, ...rest)) : null,
    ];
  }

  function showCase(card, chosen) {
    const data = JSON.parse(card.item.querySelector("script").textContent);
    const shown = cards.filter((one) => !one.item.hidden);
    const order = [...list.children];
    shown.sort((a, b) => order.indexOf(a.item) - order.indexOf(b.item));
    const at = shown.indexOf(card);
    const step = (to, text) => (to ? make("a", { href: address(to.name) }, `${text}: ${to.name}`) : null);
    const steps = [make("a", { href: "#cases" }, "All cases"), step(shown[at - 1], "Previous"), step(shown[at + 1], "Next")];
    const missing = data.missing.map((index) => make("li", {}, classes[index].name));
    article.replaceChildren(...[
      many ? make("nav", { class: "steps", "aria-label": "Cases" }, ...steps.filter(Boolean)) : null,
      data.error ? make("p", { class: "note bad" }, make("b", {}, "Failed: "), data.error) : null,
      ...data.warnings.map((text) => make("p", { class: "note" }, make("b", {}, "Warning: "), text)),
      ...pictures(data, card),
      ...unusual(data.findings),
      ...(data.rows.length ? [make("h2", {}, "Structures"), ...structures(data, chosen, data.name)] : []),
      missing.length
        ? make("details", {}, make("summary", {}, counted(missing.length, "class was not found", "classes were not found")), make("ul", { class: "columns" }, ...missing))
        : null,
      make("h2", {}, "What was run"),
      facts(data),
      ...(data.messages.length ? [make("h2", {}, "Messages"), make("ul", {}, ...data.messages.map((text) => make("li", {}, text)))] : []),
      ...(data.changes.length
        ? [make("details", {}, make("summary", {}, `The clean-up changed ${counted(data.changes.length, "class", "classes")}`),
            make("ul", {}, ...data.changes.map((text) => make("li", {}, text))))]
        : []),
    ].filter(Boolean));
    overview.hidden = true;
    article.hidden = false;
    head(data.name);
    document.title = many ? `${data.name} – ${shared.title}` : shared.title;
  }

  // The heading of the page: the name of a case, or without one the title.
  function head(name) {
    const title = name === undefined ? shared.title : name;
    document.getElementById("title").textContent = title;
    document.getElementById("of").textContent = title === shared.title ? "" : ` · ${shared.title}`;
    document.getElementById("summary").hidden = many && name !== undefined;
  }

  // A few names, and how many more there are.
  function listed(names) {
    const parts = names.length > 4 ? [...names.slice(0, 3), `${names.length - 3} more`] : names;
    return parts.length > 1 ? `${parts.slice(0, -1).join(", ")} and ${parts[parts.length - 1]}` : parts.join("");
  }
  if (shared.models.length) document.getElementById("models").textContent = `${listed(shared.models)}, `;

  let from = null;
  function route(focus) {
    for (const dialog of document.querySelectorAll("dialog")) dialog.close();
    const wanted = new URLSearchParams(location.hash.slice(1));
    const card = cards.find((one) => one.name === wanted.get("case")) || (many ? null : cards[0]);
    if (card) {
      showCase(card, wanted.has("sort") ? { key: wanted.get("sort"), order: wanted.get("order") } : null);
      from = card;
      if (focus) {
        scrollTo(0, 0);
        article.focus({ preventScroll: true });
      }
    } else if (["", "#cases"].includes(location.hash) || overview.hidden) {
      article.hidden = true;
      overview.hidden = false;
      head();
      document.title = shared.title;
      if (focus && from) from.item.querySelector("a").focus();
    }
  }

  const search = document.getElementById("search");
  const only = document.getElementById("only");
  const sorting = document.getElementById("order");
  // All that can be searched of a case: its card has the first findings only.
  function searched(card) {
    if (card.all === undefined) {
      const data = JSON.parse(card.item.querySelector("script").textContent);
      const found = data.findings.flatMap((one) => [one.text, ...one.structures]);
      card.all = [card.text, ...found, ...data.missing.map((index) => classes[index].name)].join("\n").toLowerCase();
    }
    return card.all;
  }
  function choose() {
    const words = search.value.trim();
    let count = 0;
    for (const card of cards) {
      card.item.hidden = (only.checked && card.score === 0) || (words !== "" && !searched(card).includes(words.toLowerCase()));
      count += !card.item.hidden;
    }
    const all = counted(cards.length, "case");
    document.getElementById("count").textContent = count === cards.length ? all : `${count} of ${all}`;
    const which = only.checked ? "unusual case" : "case";
    const none = words ? `No ${which} matches "${words}".` : "No case is unusual.";
    document.getElementById("none").textContent = count ? "" : none;
  }
  function arrange() {
    const compare = { unusual: (a, b) => b.score - a.score || a.index - b.index, name: (a, b) => a.index - b.index };
    list.append(...[...cards].sort(compare[sorting.value]).map((card) => card.item));
  }
  search.addEventListener("input", choose);
  only.addEventListener("change", choose);
  sorting.addEventListener("change", arrange);

  const cohort = document.getElementById("cohort");
  cohort.addEventListener("toggle", () => {
    const holder = cohort.lastElementChild;
    if (!cohort.open || holder.children.length) return;
    const columns = [
      { key: "name", title: "Structure", text: true, show: swatch },
      { key: "found", title: "Found", show: whole("found") },
      { key: "looked", title: "Looked for", show: whole("looked") },
      { key: "cut", title: "Cut off", show: whole("cut") },
      { key: "median", title: "Median, mL" },
      { key: "smallest", title: "Smallest, mL" },
      { key: "largest", title: "Largest, mL" },
      classes.some((one) => one.code) ? { key: "code", title: "Code", text: true, show: coded } : null,
    ].filter(Boolean);
    const caption = `${counted(classes.length, "class", "classes")}. Found, looked for and cut off count cases; volumes are of structures that are whole.`;
    holder.append(...table(caption, columns, classes).filter(Boolean));
  });

  cohort.hidden = !many;
  arrange();
  choose();
  route(false);
  addEventListener("hashchange", () => {
    if (location.hash !== "#main") route(true);
  });
})();
