// The page: forms → jobs, jobs → a list, a finished one → NiiVue, its organs beside the training population.
"use strict";

const CT_WINDOWS = { "soft tissue": [-160, 240], lung: [-1000, 200], bone: [-500, 1300] }; // HU
const PET_WINDOWS = { "SUV 0–7": [0, 7], "SUV 0–15": [0, 15] };
const STD_WINDOW = [0, 1], MR_WINDOW = [0, 1300];
const SAID = { // name of a volume → its value in words
  CT: (value) => `CT ${Math.round(value)} HU`, SUV: (value) => `SUV ${value.toFixed(2)}`,
  SUV_std: (value) => `standard deviation ${value.toFixed(2)}`, MR: (value) => `MR ${value.toFixed(0)}`,
  MR_std: (value) => `standard deviation ${value.toFixed(0)}`,
};
const LABEL_INTENT = 1002; // NIFTI_INTENT_LABEL: NiiVue outlines labels only
const POLL_MS = 1000;
const STATES = { queued: "waits", running: "runs", done: "done", failed: "failed", cancelled: "cancelled" };
const STEPS = {
  ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowDown: [0, 0, -1], ArrowUp: [0, 0, 1],
  PageDown: [0, -1, 0], PageUp: [0, 1, 0],
};

const $ = (selector, within = document) => within.querySelector(selector);
let about = null;
let jobs = [];

function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Start it again: make app.");
  }
  const body = await answer.text();
  if (answer.ok) return body ? JSON.parse(body) : null;
  let said = body.replace(/^Error: /, "");
  try { said = JSON.parse(body).error; } catch { /* it was plain text */ }
  throw new Error(said);
}

// ---- tabs and forms

function choose(tab) {
  for (const each of document.querySelectorAll("[role=tab]")) {
    const chosen = each === tab;
    each.setAttribute("aria-selected", chosen);
    each.tabIndex = chosen ? 0 : -1;
    $(`#${each.getAttribute("aria-controls")}`).hidden = !chosen;
  }
}

function startTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  tabs.forEach((tab, n) => {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(n + step + tabs.length) % tabs.length];
      choose(next);
      next.focus();
    });
  });
}

async function submit(form) {
  const error = $(".error", form), button = $("button", form);
  error.textContent = "";
  button.disabled = true;
  try {
    const values = Object.fromEntries([...new FormData(form)].filter(([name]) => name !== "file"));
    const file = form.elements.file?.files[0];
    if (file) values.upload = (await ask(`/api/uploads?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file })).upload;
    await ask("/api/jobs", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ kind: form.id, values }),
    });
    await refresh();
  } catch (caught) {
    error.textContent = `Error: ${caught.message}`;
  }
  button.disabled = form.id === "translate" && Boolean(about.translator);
}

function showRanges() {
  const known = about.ranges[$("#generate").elements.family.value] ?? {};
  for (const name of ["age_years", "height_m", "weight_kg"]) {
    const range = known[name];
    $(`#range-${name}`).textContent = range ? `training: ${range.map((n) => +n.toPrecision(4)).join(" to ")}` : "";
  }
}

// ---- jobs

function title(job) {
  const v = job.values;
  if (job.kind === "generate") {
    const steps = v.steps ? `, ${v.steps} steps` : "";
    return `${v.sex} ${v.age} y, ${v.height_cm} cm, ${v.weight_kg} kg, seed ${v.seed ?? 1}, ${v.family ?? "edm"}${steps}`;
  }
  const samples = Number(v.samples ?? 1) === 1 ? "1 sample" : `${v.samples} samples`;
  return job.kind === "denoise" ? `PET at dose ${v.dose}, ${samples}` : `MR of a CT, ${samples}`;
}

function told(job) {
  const p = job.progress;
  if (job.state === "running" && p.network) {
    return `${p.network.replaceAll("_", " ")}, step ${p.evaluation}; ${Math.round(100 * p.share)} % of the work`;
  }
  return STATES[job.state] + (job.state === "done" ? ` in ${job.seconds.toFixed(1)} s` : "");
}

function draw(job) {
  const item = $(`#job-${job.id}`) ?? element("li", "", { id: `job-${job.id}` });
  if (item.dataset.state !== job.state) {
    item.dataset.state = job.state;
    item.replaceChildren(element("strong", title(job)), element("div", "", { class: "told" }));
    if (job.state === "running") item.append(element("progress", "", { max: 1, "aria-label": `progress of ${title(job)}` }));
    if (job.state === "running" || job.state === "queued") {
      const cancel = element("button", "Cancel", { type: "button", "aria-label": `Cancel ${title(job)}` });
      cancel.addEventListener("click", () => ask(`/api/jobs/${job.id}`, { method: "DELETE" }).then(refresh, report));
      item.append(cancel);
    }
    if (job.state === "done") {
      const show = element("button", "Show", { type: "button", "aria-label": `Show ${title(job)}` });
      show.addEventListener("click", () => { $("#shown").value = job.id; sides[0].show(job.id); });
      item.append(show);
    }
    if (job.error) item.append(element("p", `Error: ${job.error}`, { class: "error" }));
    for (const doubt of job.state === "running" ? [] : job.doubts) item.append(element("p", `Warning: ${doubt}.`));
  }
  $(".told", item).textContent = told(job);
  const bar = $("progress", item);
  if (bar) bar.value = job.progress.share ?? 0;
  return item;
}

const report = (error) => { $("#status").textContent = `Error: ${error.message}`; };

async function refresh() {
  const before = Object.fromEntries(jobs.map((job) => [job.id, job.state]));
  jobs = await ask("/api/jobs");
  const items = jobs.map(draw);
  if (items.some((item, n) => $("#jobs").children[n] !== item)) $("#jobs").replaceChildren(...items);
  for (const job of jobs) {
    if (job.id in before && before[job.id] !== job.state) $("#status").textContent = `${title(job)}: ${STATES[job.state]}`;
    if (job.state === "done" && before[job.id] && before[job.id] !== "done") await offer(job.id);
  }
  if ($("#status").textContent.startsWith("Error: The server")) $("#status").textContent = "";
}

async function poll() {
  try { await refresh(); } catch (error) { report(error); }
  setTimeout(poll, POLL_MS);
}

// ---- what can be looked at: an id is that of a job, or with "/input" what was given to it

function looks() {
  const done = jobs.filter((job) => job.state === "done");
  return done.flatMap((job) => {
    const own = [[job.id, title(job)]];
    return job.files.includes("input.nii.gz") ? [...own, [`${job.id}/input`, `${title(job)}: as given`]] : own;
  });
}

async function offer(newest) {
  for (const [select, first] of [[$("#shown"), []], [$("#beside"), [["", "nothing"]]]]) {
    const chosen = select.value;
    select.replaceChildren(...[...first, ...looks()].map(([value, text]) => element("option", text, { value })));
    select.value = chosen || (first.length ? "" : newest);
  }
  if (!looks().length) return;
  $("#look").hidden = false;
  if (newest) $("#shown").value = newest;
  await sides[0].show($("#shown").value);
}

function layers(job, input) {
  const there = (name) => job.files.includes(`${name}.nii.gz`);
  const pet = { window: "pet", colormap: "gray" }, ct = { window: "ct", colormap: "gray" };
  if (input) return [{ file: "input", name: job.kind === "denoise" ? "SUV" : "CT", ...(job.kind === "denoise" ? pet : ct) }];
  if (there("CT")) {
    const found = [{ name: "CT", ...ct }, { name: "SUV", window: "pet", colormap: "hot", over: true }];
    return there("organs") ? [...found, { name: "organs", labels: true }] : found;
  }
  const base = there("MR") ? { name: "MR", window: "mr", colormap: "gray" } : { name: "SUV", ...pet };
  const std = { name: `${base.name}_std`, window: base.name === "SUV" ? "std" : "mr", colormap: "hot", over: true };
  return there(std.name) ? [base, std] : [base];
}

const WINDOWS = {
  ct: () => CT_WINDOWS[$("#ct-window").value], pet: () => PET_WINDOWS[$("#pet-window").value],
  std: () => STD_WINDOW, mr: () => MR_WINDOW,
};

function colours() { // of outlines, inside of which labels are transparent: hues far apart, the same for the same organ
  const ids = Object.entries(about.organs).sort((a, b) => a[1] - b[1]);
  const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ["background"] };
  ids.forEach(([name, id], n) => {
    const hue = (n * 137.5) % 360, part = (shift) => 255 * (0.6 + 0.4 * Math.cos(((hue + shift) * Math.PI) / 180));
    for (const [key, value] of Object.entries({ R: part(0), G: part(-120), B: part(120), A: 0, I: id, labels: name })) table[key].push(value);
  });
  return table;
}

class Side {
  constructor() {
    $("#pair").append($("#study").content.cloneNode(true));
    this.article = $("#pair").lastElementChild;
    this.canvas = $("canvas", this.article);
    this.nv = new niivue.Niivue({
      isRadiologicalConvention: true, sagittalNoseLeft: true, isColorbar: true, crosshairWidth: 2, crosshairWidthUnit: "mm",
      backColor: [0, 0, 0, 1], crosshairColor: [0.2, 0.8, 1, 0.7], dragAndDropEnabled: false, logLevel: "error",
      fontColor: [0.85, 0.85, 0.85, 1],
    });
    this.nv.onLocationChange = (place) => this.read(place);
    this.canvas.addEventListener("keydown", (event) => {
      if (!(event.key in STEPS)) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      this.nv.moveCrosshairInVox(...STEPS[event.key]);
    });
    this.layers = [];
    this.id = "";
  }

  async show(id) {
    this.article.hidden = !id;
    if (!id || id === this.id) return;
    this.id = id;
    const [identity, input] = id.split("/");
    const job = jobs.find((each) => each.id === identity);
    const base = `/files/${job.made.split("/").map(encodeURIComponent).join("/")}`;
    if (!this.attached) this.attached = this.nv.attachToCanvas(this.canvas);
    await this.attached;
    this.layers = layers(job, input);
    await this.nv.loadVolumes(this.layers.map((layer) => {
      const [low, high] = layer.labels ? [0, 1] : WINDOWS[layer.window]();
      const url = `${base}/${layer.file ?? layer.name}.nii.gz`;
      return { url, name: `${layer.name}.nii.gz`, colormap: layer.colormap ?? "gray",
        opacity: 1, cal_min: low, cal_max: high, colorbarVisible: !layer.labels };
    }));
    this.layers.forEach((layer, n) => {
      if (!layer.labels) return;
      this.nv.volumes[n].hdr.intent_code = LABEL_INTENT;
      this.nv.volumes[n].setColormapLabel(colours());
    });
    this.adjust();
    this.canvas.setAttribute("aria-label", `${title(job)}: ${this.layers.map((each) => each.name).join(", ")}. Arrow keys and page up, page down move the crosshair.`);
    await this.tell(job, base, input);
    this.nv.createOnLocationChange();
    this.article.dataset.shown = id;
  }

  adjust() {
    this.layers.forEach((layer, n) => {
      const volume = this.nv.volumes[n];
      if (!layer.labels) [volume.cal_min, volume.cal_max] = WINDOWS[layer.window]();
      volume.opacity = layer.over ? Number($("#opacity").value) : 1;
    });
    const [view, rendering] = $("#view").value.split(" ").map(Number);
    this.nv.opts.atlasOutline = Number($("#outlines").checked);
    this.nv.opts.multiplanarShowRender = rendering ?? 0;
    this.nv.setSliceType(view);
    this.nv.updateGLVolume();
  }

  read(place) {
    const values = Object.fromEntries(this.layers.map((layer, n) => [layer.name, place.values[n]?.value]));
    const organ = Object.entries(about.organs).find(([, id]) => id === values.organs)?.[0] ?? "";
    const shown = this.layers.filter((layer) => !layer.labels).map((layer) => SAID[layer.name](values[layer.name] ?? NaN));
    const mm = [...place.mm].slice(0, 3);
    const read = $(".read", this.article);
    read.textContent = [`x, y, z: ${mm.map((each) => each.toFixed(0)).join(", ")} mm`, ...shown, organ.replaceAll("_", " ")].filter(Boolean).join(" · ");
    read.dataset.values = JSON.stringify({ mm, ...values });
  }

  async tell(job, base, input) {
    $("h2", this.article).textContent = title(job) + (input ? ": as given" : "");
    const links = $(".links", this.article);
    links.replaceChildren();
    const link = (text, href, download) => links.append(element("a", text, { href, ...(download ? { download: "" } : { target: "_blank" }) }), " ");
    for (const file of job.files.filter((each) => each.endsWith(".nii.gz"))) link(file, `${base}/${file}`, true);
    const zip = `/api/studies/${job.made.split("/").map(encodeURIComponent).join("/")}`;
    link("all NIfTI (zip)", `${zip}/nifti.zip`, true);
    if (job.files.includes("dicom")) link("DICOM (zip)", `${zip}/dicom.zip`, true);
    link("cohort index", `${base.replace(/\/[^/]*$/, "")}/index.html`);
    if (job.report) link("report", `${base.replace(/\/[^/]*$/, "")}/report/report.html`);
    link("manifest.csv", `${base.replace(/\/[^/]*$/, "")}/manifest.csv`, true);
    const mip = $(".mip", this.article);
    mip.hidden = !job.files.includes("mip.gif") || Boolean(input);
    if (!mip.hidden) { $("img", mip).src = `${base}/mip.gif`; $("img", mip).alt = `Rotating projection of the PET of ${title(job)}`; }
    const study = await ask(`${base}/study.json`);
    $("pre", this.article).textContent = JSON.stringify(study, null, 1);
    const shown = (file) => !input && job.files.includes(file);
    this.judge(study, shown("organs.csv") ? await table(`${base}/organs.csv`) : [], shown("training.json") ? await ask(`${base}/training.json`) : null);
  }

  judge(study, rows, training) {
    const passed = /^(passed|not checked)/.test(study.quality ?? "not checked");
    $(".quality", this.article).textContent = study.quality ? `Check against the training cohort: ${passed ? study.quality : "failed"}` : "";
    const flags = [...(passed ? [] : study.quality.split("; ")), ...rows.filter((row) => row.flag).map((row) => `${row.organ}: ${row.flag}`)];
    $(".flags", this.article).replaceChildren(...flags.map((each) => element("li", each)));
    this.fill("measured", rows.map((row) => [row.organ, ...["volume_l", "suv_mean", "suv_max", "suv_peak"].map((name) => (row[name] === "" ? "–" : Number(row[name]).toFixed(2)))]));
    if (training) $(".training caption", this.article).textContent = `Organs beside the ranges of ${training.subjects} ${study.sex === "F" ? "women" : "men"} of the training`;
    this.fill("training", Object.entries(training?.organs ?? {}).map(([organ, ranges]) => [organ.replaceAll("_", " "), ...["volume", "hu", "suv"].flatMap((measure) => {
      const value = training.figures[`${organ}.${measure}`] ?? NaN, [low, high] = ranges[measure];
      const text = (number) => (measure === "suv" ? number.toFixed(2) : number.toFixed(0));
      return [Number.isNaN(value) ? "–" : text(value) + (value < low ? " ↓" : value > high ? " ↑" : ""), `${text(low)} to ${text(high)}`];
    })]));
  }

  fill(name, rows) {
    const table = $(`.${name}`, this.article);
    table.hidden = !rows.length;
    $("tbody", table).replaceChildren(...rows.map(([organ, ...cells]) => {
      const line = element("tr");
      line.append(element("th", organ, { scope: "row" }), ...cells.map((cell) => element("td", cell, /[↑↓]/.test(cell) ? { class: "beyond" } : {})));
      return line;
    }));
  }
}

async function table(path) {
  const [head, ...lines] = (await (await fetch(path)).text()).trim().split(/\r?\n/).map((line) => line.split(","));
  return lines.map((cells) => Object.fromEntries(head.map((name, n) => [name, cells[n]])));
}

let sides = [];

function startTools() {
  for (const [select, presets] of [["#ct-window", CT_WINDOWS], ["#pet-window", PET_WINDOWS]]) {
    $(select).append(...Object.keys(presets).map((name) => element("option", name)));
  }
  for (const control of ["#ct-window", "#pet-window", "#opacity", "#view", "#outlines"]) {
    $(control).addEventListener("input", () => sides.filter((side) => side.id).forEach((side) => side.adjust()));
  }
  $("#shown").addEventListener("change", (event) => sides[0].show(event.target.value));
  $("#beside").addEventListener("change", async (event) => {
    sides[1] ??= new Side();
    await sides[1].show(event.target.value);
    const [one, two] = sides.map((side) => side.nv);
    one.broadcastTo(event.target.value ? [two] : []);
    two.broadcastTo(event.target.value ? [one] : []);
  });
}

function softwareOnly() { // whether the browser draws without a graphics card: a rendering takes seconds
  const gl = document.createElement("canvas").getContext("webgl2");
  const known = gl?.getExtension("WEBGL_debug_renderer_info");
  return known ? /swiftshader|llvmpipe|software/i.test(gl.getParameter(known.UNMASKED_RENDERER_WEBGL)) : false;
}

async function start() {
  startTabs();
  if (softwareOnly()) $("#view").value = "3 0";
  startTools();
  sides = [new Side()];
  for (const form of document.querySelectorAll("form")) {
    form.addEventListener("submit", (event) => { event.preventDefault(); submit(form); });
  }
  try {
    about = await ask("/api/about");
    $("#generate").elements.family.append(...about.families.map((name) => element("option", name)));
    $("#generate").elements.family.addEventListener("change", showRanges);
    showRanges();
    if (about.translator) {
      $("#no-translator").textContent = about.translator;
      $("#no-translator").hidden = false;
      $("#translate button").disabled = true;
    }
    await refresh();
    await offer(jobs.find((job) => job.state === "done")?.id);
  } catch (error) {
    report(error);
  }
  poll();
}

start();
