"use strict";
(async () => {
  const started = performance.now();
  const $ = (id) => document.getElementById(id);
  const meta = JSON.parse($("meta").textContent);
  const { n, radius, width: W0, height: H0, microns } = meta;

  async function unpack(text, Kind) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const buffer = await new Response(stream).arrayBuffer();
    return Kind ? new Kind(buffer) : new TextDecoder().decode(buffer);
  }
  const stored = (id, Kind) => unpack($(id).textContent, Kind);

  // ------------------------------------------------------------------ data
  const places = await stored("places", Uint16Array);
  const layers = meta.layers; // {id, label, group, names, colors, low, high, unit, wide}
  const byId = new Map(layers.map((layer) => [layer.id, layer]));
  async function load(layer) {
    if (!layer.codes) {
      layer.codes = await stored(`data-${layer.id}`, layer.wide ? Uint16Array : Uint8Array);
      layer.none = layer.wide ? 65535 : 255;
    }
    return layer;
  }
  const domains = await load(layers[0]);
  const sureness = byId.has("confidence") ? await load(byId.get("confidence")) : null;
  let ids = null;
  const loadIds = async () => (ids ??= (await stored("spot-names")).split("\n"));
  const pictures = await Promise.all(
    meta.pictures.map(async (picture) => {
      const image = new Image();
      image.src = picture.href;
      await image.decode();
      return { ...picture, image };
    })
  );
  const viridis = meta.viridis.map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  const grey = [200, 200, 200];
  const toRgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  function makeTable(layer) {
    if (layer.table) return layer.table;
    const table = [];
    if (layer.names) layer.colors.forEach((color) => table.push(toRgb(color)));
    else
      for (let i = 0; i < 255; i++) table.push(viridis[Math.round((i / 254) * (viridis.length - 1))]);
    layer.table = table;
    return table;
  }

  // spots by place: cells of about four spots
  const side = Math.max(1, Math.ceil(Math.sqrt(n / 4)));
  const step = 65536 / side;
  const cellOf = (i) => Math.floor(places[2 * i + 1] / step) * side + Math.floor(places[2 * i] / step);
  const starts = new Uint32Array(side * side + 1);
  for (let i = 0; i < n; i++) starts[cellOf(i) + 1]++;
  for (let i = 0; i < side * side; i++) starts[i + 1] += starts[i];
  const inCells = new Uint32Array(n);
  const filled = starts.slice();
  for (let i = 0; i < n; i++) inCells[filled[cellOf(i)]++] = i;

  // ------------------------------------------------------------------ state
  const canvas = $("map");
  const context = canvas.getContext("2d");
  const buffer = document.createElement("canvas");
  const view = { x: 0, y: 0, scale: 1 }; // pixel = (place - x) * scale
  const hidden = new Map(); // layer id -> set of codes that aren't drawn
  const state = { layer: domains, spots: 1, image: 1, lasso: false, path: [], selected: null };
  let css = { width: 0, height: 0 };
  let pixels = 1;
  let least = 1;

  function resize() {
    pixels = Math.min(3, window.devicePixelRatio || 1);
    css = { width: canvas.clientWidth, height: canvas.clientHeight };
    canvas.width = Math.max(1, Math.round(css.width * pixels));
    canvas.height = Math.max(1, Math.round(css.height * pixels));
  }
  function fit() {
    const margin = 2 * radius + 0.02 * Math.max(W0, H0);
    const tools = document.querySelector(".tools"); // above the map where it is narrow
    const above = getComputedStyle(tools).flexDirection === "row" ? tools.offsetHeight + 16 : 0;
    const top = (meta.titles.length ? 22 : 0) + above;
    const room = { width: css.width, height: css.height - top - 30 };
    view.scale = Math.min(room.width / (W0 + 2 * margin), room.height / (H0 + 2 * margin));
    least = view.scale / 2;
    view.x = W0 / 2 - css.width / 2 / view.scale;
    view.y = H0 / 2 - (room.height / 2 + top) / view.scale;
    state.fitted = true; // until it is moved: a window of another size shows it whole again
    redraw();
  }
  const project = (i) => [
    (places[2 * i] - view.x) * view.scale,
    (places[2 * i + 1] - view.y) * view.scale,
  ];
  function isShown(i) {
    const off = hidden.get(domains.id);
    if (off && off.has(domains.codes[i])) return false;
    const layer = state.layer;
    const other = layer !== domains && layer.names ? hidden.get(layer.id) : null;
    return !(other && other.has(layer.codes[i]));
  }

  // ------------------------------------------------------------------ drawing
  let planned = 0;
  const redraw = () => (planned ||= requestAnimationFrame(draw));

  function draw() {
    planned = 0;
    const begin = performance.now();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.setTransform(pixels, 0, 0, pixels, 0, 0);
    context.globalAlpha = state.image;
    if (state.image > 0)
      for (const p of pictures)
        context.drawImage(
          p.image,
          (p.x - view.x) * view.scale,
          (p.y - view.y) * view.scale,
          p.width * view.scale,
          p.height * view.scale
        );
    context.globalAlpha = 1;
    if (state.spots > 0) drawSpots();
    context.font = "600 13px system-ui, sans-serif";
    context.textAlign = "center";
    for (const title of meta.titles) {
      const x = (title.x - view.x) * view.scale;
      const y = (title.y - radius - view.y) * view.scale - 6;
      context.lineWidth = 3;
      context.strokeStyle = "#fff";
      context.strokeText(title.name, x, y);
      context.fillStyle = "#1c2430";
      context.fillText(title.name, x, y);
    }
    drawLasso();
    drawBar();
    hook.drawMs = performance.now() - begin;
  }

  const list = new Uint32Array(n);
  function listVisible() {
    const r = radius;
    const [x0, y0] = [view.x - r, view.y - r];
    const [x1, y1] = [view.x + css.width / view.scale + r, view.y + css.height / view.scale + r];
    const { codes } = state.layer;
    const domainOf = domains.codes;
    const off = hidden.get(domains.id);
    const other = state.layer !== domains && state.layer.names ? hidden.get(state.layer.id) : null;
    let found = 0;
    for (let i = 0; i < n; i++) {
      const x = places[2 * i];
      const y = places[2 * i + 1];
      if (x < x0 || x > x1 || y < y0 || y > y1) continue;
      if ((off && off.has(domainOf[i])) || (other && other.has(codes[i]))) continue;
      list[found++] = i;
    }
    return list.subarray(0, found);
  }

  function drawSpots() {
    const layer = state.layer;
    const table = makeTable(layer);
    const visible = listVisible();
    const r = Math.max(radius * view.scale, 0.6);
    if (r * pixels < 2.5 || visible.length > 30000) return splat(visible, layer, table, r);
    const groups = new Map();
    for (const i of visible) {
      const code = layer.codes[i];
      const kind = code === layer.none || layer.names ? code : code & ~3;
      groups.has(kind) ? groups.get(kind).push(i) : groups.set(kind, [i]);
    }
    context.globalAlpha = state.spots;
    for (const [code, members] of [...groups].sort((a, b) => a[0] - b[0])) {
      const color = code === layer.none ? grey : table[code];
      context.fillStyle = `rgb(${color})`;
      context.beginPath();
      for (const i of members) {
        const [x, y] = project(i);
        context.moveTo(x + r, y);
        context.arc(x, y, r, 0, 6.2832);
      }
      context.fill();
    }
    context.globalAlpha = 1;
    if (state.selected) {
      context.strokeStyle = "#000";
      context.lineWidth = 1.5;
      context.beginPath();
      for (const i of visible)
        if (state.selected.has(i)) {
          const [x, y] = project(i);
          context.moveTo(x + r, y);
          context.arc(x, y, r, 0, 6.2832);
        }
      context.stroke();
    }
  }

  // Very many spots: squares, written as pixels.
  function splat(visible, layer, table, r) {
    const [w, h] = [canvas.width, canvas.height];
    if (buffer.width !== w || buffer.height !== h) [buffer.width, buffer.height] = [w, h];
    const size = Math.max(1, Math.round(2 * r * pixels));
    const image = new ImageData(w, h);
    const words = new Uint32Array(image.data.buffer);
    const pack = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
    const packed = table.map(pack);
    const scale = view.scale * pixels;
    const { codes, none } = layer;
    const missing = pack(grey);
    const { selected } = state;
    for (let k = 0; k < visible.length; k++) {
      const i = visible[k];
      let color = codes[i] === none ? missing : packed[codes[i]];
      if (selected && selected.has(i)) color = 0xff000000;
      const left = Math.round((places[2 * i] - view.x) * scale - size / 2);
      const top = Math.round((places[2 * i + 1] - view.y) * scale - size / 2);
      for (let y = Math.max(0, top); y < Math.min(h, top + size); y++)
        for (let x = Math.max(0, left); x < Math.min(w, left + size); x++) words[y * w + x] = color;
    }
    buffer.getContext("2d").putImageData(image, 0, 0);
    context.globalAlpha = state.spots;
    context.drawImage(buffer, 0, 0, css.width, css.height);
    context.globalAlpha = 1;
  }

  function drawLasso() {
    if (state.path.length < 2) return;
    context.beginPath();
    state.path.forEach(([x, y], k) =>
      (k ? context.lineTo : context.moveTo).call(
        context, (x - view.x) * view.scale, (y - view.y) * view.scale
      )
    );
    context.closePath();
    context.fillStyle = "rgba(28, 36, 48, .12)";
    context.fill();
    context.setLineDash([5, 4]);
    context.lineWidth = 1.5;
    context.strokeStyle = "#1c2430";
    context.stroke();
    context.setLineDash([]);
  }

  function drawBar() {
    const bar = $("bar");
    bar.hidden = !microns;
    if (!microns) return;
    const room = (css.width / 4 / view.scale) * microns;
    const power = 10 ** Math.floor(Math.log10(room));
    const length = power * [5, 2, 1].find((k) => k * power <= room);
    bar.style.width = `${(length / microns) * view.scale}px`;
    bar.textContent = length >= 1000 ? `${length / 1000} mm` : `${+length.toPrecision(2)} µm`;
  }

  // ------------------------------------------------------------------ layers and legend
  const round = (value) => String(+Number(value).toPrecision(3));
  const numbers = (value) => value.toLocaleString("en");

  async function show(id) {
    let layer = byId.get(id);
    if (!layer) {
      const found = meta.genes.findIndex((gene) => `gene-${gene.name}` === id);
      if (found < 0) return false;
      const gene = meta.genes[found];
      layer = { id, label: gene.name, low: gene.low, high: gene.high, unit: meta.gene_unit };
      layer.codes = await unpack($("genes").content.children[found].textContent, Uint8Array);
      layer.none = 255;
      byId.set(id, layer);
    } else await load(layer);
    state.layer = layer;
    $("layer").value = layers.includes(layer) ? id : "";
    $("gene").value = layers.includes(layer) ? "" : layer.label;
    $("gene-none").hidden = true;
    drawLegend();
    redraw();
    return true;
  }

  function drawLegend() {
    const layer = state.layer;
    $("layer-name").textContent = layer.label;
    const scale = $("scale");
    scale.hidden = Boolean(layer.names);
    if (!layer.names) {
      $("low").textContent = round(layer.low);
      $("high").textContent = round(layer.high) + (layer.id.startsWith("gene-") ? " or more" : "");
      $("unit").textContent = layer.unit || "";
    }
    const shown = layer.names ? layer : domains;
    $("legend-title").textContent = layer.names ? "" : "Domains shown";
    const list = $("legend");
    list.replaceChildren();
    if (!hidden.has(shown.id)) hidden.set(shown.id, new Set());
    const off = hidden.get(shown.id);
    shown.counts ??= countCodes(shown);
    shown.names.forEach((name, code) => {
      const item = document.createElement("button");
      const dot = document.createElement("i");
      const text = document.createElement("span");
      const count = document.createElement("b");
      dot.style.background = shown.colors[code];
      text.textContent = name;
      count.textContent = numbers(shown.counts[code]);
      item.append(dot, text, count);
      item.type = "button";
      item.setAttribute("aria-pressed", String(!off.has(code)));
      item.title = "Show or hide; double-click: this one alone";
      item.addEventListener("click", () => {
        off.has(code) ? off.delete(code) : off.add(code);
        item.setAttribute("aria-pressed", String(!off.has(code)));
        redraw();
      });
      item.addEventListener("dblclick", () => {
        off.clear();
        shown.names.forEach((_, other) => other !== code && off.add(other));
        drawLegend();
        redraw();
      });
      list.append(item);
    });
    $("all").hidden = shown.names.length < 2;
  }
  function countCodes(layer) {
    const counts = new Array(layer.names.length).fill(0);
    for (let i = 0; i < n; i++) if (layer.codes[i] !== layer.none) counts[layer.codes[i]]++;
    return counts;
  }
  $("all").addEventListener("click", () => {
    hidden.clear();
    drawLegend();
    redraw();
  });
  $("layer").addEventListener("change", (event) => show(event.target.value));
  const search = async () => {
    const wanted = $("gene").value.trim().toLowerCase();
    if (!wanted) return;
    const gene = meta.genes.find((one) => one.name.toLowerCase() === wanted);
    if (gene) await show(`gene-${gene.name}`);
    else $("gene-none").hidden = false;
  };
  $("gene")?.addEventListener("change", search);
  $("gene")?.addEventListener("input", (event) => {
    $("gene-none").hidden = true;
    const wanted = event.target.value.trim().toLowerCase();
    if (meta.genes.some((one) => one.name.toLowerCase() === wanted)) search();
  });
  for (const name of ["spots", "image"])
    $(`${name}-opacity`)?.addEventListener("input", (event) => {
      state[name] = event.target.value / 100;
      redraw();
    });

  // ------------------------------------------------------------------ hover
  function findSpot(px, py) {
    const x = px / view.scale + view.x;
    const y = py / view.scale + view.y;
    const reach = Math.max(1.1 * radius, 8 / view.scale);
    const clip = (value) => Math.min(side - 1, Math.max(0, Math.floor(value / step)));
    let [best, nearest] = [-1, reach * reach];
    for (let row = clip(y - reach); row <= clip(y + reach); row++)
      for (let column = clip(x - reach); column <= clip(x + reach); column++)
        for (let k = starts[row * side + column]; k < starts[row * side + column + 1]; k++) {
          const i = inCells[k];
          const distance = (places[2 * i] - x) ** 2 + (places[2 * i + 1] - y) ** 2;
          if (distance < nearest && isShown(i)) [best, nearest] = [i, distance];
        }
    return best;
  }
  const tell = (layer, i) => {
    const code = layer.codes[i];
    if (code === layer.none) return "–";
    if (layer.names) return layer.names[code];
    return round(layer.low + (code / 254) * (layer.high - layer.low));
  };
  let hovered = -1;
  async function hover(px, py) {
    const tip = $("tip");
    const i = findSpot(px, py);
    hovered = i;
    if (i < 0) return void (tip.hidden = true);
    const name = (await loadIds())[i];
    if (hovered !== i) return; // the mouse has moved on
    const rows = [[name, ""], ["domain", tell(domains, i)]];
    if (sureness) rows.push(["confidence", tell(sureness, i)]);
    if (state.layer !== domains && state.layer !== sureness)
      rows.push([state.layer.label, tell(state.layer, i)]);
    tip.replaceChildren(
      ...rows.map(([head, value]) => {
        const line = document.createElement("div");
        const key = document.createElement("span");
        key.textContent = head;
        const text = document.createElement("b");
        text.textContent = value;
        line.append(key, text);
        return line;
      })
    );
    tip.hidden = false;
    const left = px + 14 + tip.offsetWidth > css.width ? px - 14 - tip.offsetWidth : px + 14;
    const top = py + 14 + tip.offsetHeight > css.height ? py - 14 - tip.offsetHeight : py + 14;
    tip.style.transform = `translate(${Math.max(0, left)}px, ${Math.max(0, top)}px)`;
  }

  // ------------------------------------------------------------------ zoom, pan, lasso
  function zoom(factor, px = css.width / 2, py = css.height / 2) {
    state.fitted = false;
    const scale = Math.min(least * 400, Math.max(least, view.scale * factor));
    view.x += px / view.scale - px / scale;
    view.y += py / view.scale - py / scale;
    view.scale = scale;
    redraw();
  }
  const local = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const pointers = new Map();
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...local(event));
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, local(event));
    if (state.lasso) state.path = [];
  });
  canvas.addEventListener("pointermove", (event) => {
    const [px, py] = local(event);
    const before = pointers.get(event.pointerId);
    if (!before) return hover(px, py);
    if (state.lasso && pointers.size === 1) {
      state.path.push([px / view.scale + view.x, py / view.scale + view.y]);
      return redraw();
    }
    $("tip").hidden = true;
    state.fitted = false;
    if (pointers.size === 1) {
      view.x -= (px - before[0]) / view.scale;
      view.y -= (py - before[1]) / view.scale;
    } else {
      const other = [...pointers].find(([id]) => id !== event.pointerId)[1];
      const apart = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
      zoom(apart([px, py]) / Math.max(1, apart(before)), ...other);
    }
    pointers.set(event.pointerId, [px, py]);
    redraw();
  });
  const release = (event) => {
    const [px, py] = local(event);
    if (pointers.delete(event.pointerId) && state.lasso && state.path.length > 2) select();
    if (event.pointerType === "touch" && event.type === "pointerup" && !state.lasso) hover(px, py);
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => {
    hovered = -1;
    $("tip").hidden = true;
  });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (move) {
      state.fitted = false;
      view.x += (move[0] * 40) / view.scale;
      view.y += (move[1] * 40) / view.scale;
      redraw();
    } else if (event.key === "+" || event.key === "=") zoom(1.4);
    else if (event.key === "-") zoom(1 / 1.4);
    else if (event.key === "0") fit();
    else return;
    event.preventDefault();
  });
  $("zoom-in").addEventListener("click", () => zoom(1.5));
  $("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
  $("zoom-fit").addEventListener("click", fit);
  $("lasso").addEventListener("click", () => {
    state.lasso = !state.lasso;
    if (!state.lasso) clearSelection();
    $("lasso").setAttribute("aria-pressed", String(state.lasso));
    canvas.classList.toggle("drawing", state.lasso);
  });
  function isInside(x, y, path) {
    let inside = false;
    for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
      const [[xi, yi], [xj, yj]] = [path[i], path[j]];
      if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
    }
    return inside;
  }
  async function select() {
    const found = [];
    for (let i = 0; i < n; i++)
      if (isShown(i) && isInside(places[2 * i], places[2 * i + 1], state.path)) found.push(i);
    state.selected = new Set(found);
    const names = await loadIds();
    $("selection").hidden = false;
    $("selected").textContent = `${numbers(found.length)} spots selected`;
    $("ids").value = found.map((i) => names[i]).join("\n");
    redraw();
  }
  function clearSelection() {
    [state.selected, state.path] = [null, []];
    $("selection").hidden = true;
    redraw();
  }
  $("clear").addEventListener("click", clearSelection);
  $("copy").addEventListener("click", async () => {
    $("ids").select();
    try {
      await navigator.clipboard.writeText($("ids").value);
    } catch {
      document.execCommand("copy"); // of a page from a file
    }
  });
  $("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([$("ids").value + "\n"], { type: "text/plain" }));
    link.download = "spots.txt";
    link.click();
    URL.revokeObjectURL(link.href);
  });

  // ------------------------------------------------------------------ tables, print
  for (const table of document.querySelectorAll("table.sortable"))
    table.querySelectorAll("thead th").forEach((head, column) => {
      const button = head.querySelector("button");
      button?.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") !== "descending";
        table.querySelectorAll("thead th").forEach((one) => one.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.children[column].dataset.value ?? row.children[column].textContent;
        const compare = (a, b) => {
          const [p, q] = [value(a), value(b)];
          const order = isNaN(p) || isNaN(q) ? p.localeCompare(q, "en", { numeric: true }) : p - q;
          return down ? -order : order;
        };
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort(compare));
      });
    });
  document.querySelectorAll("[data-gene]").forEach((link) =>
    link.addEventListener("click", async () => {
      if (await show(`gene-${link.dataset.gene}`)) canvas.scrollIntoView({ block: "center" });
    })
  );
  window.addEventListener("beforeprint", () =>
    document.querySelectorAll("details").forEach((one) => (one.open = true))
  );

  const hook = { view, state, project, show, hidden, meta };
  window.skiehercl = hook;
  new ResizeObserver(() => {
    resize();
    state.fitted ? fit() : redraw();
  }).observe(canvas);
  resize();
  fit();
  $("layer").value = domains.id;
  drawLegend();
  requestAnimationFrame(() =>
    requestAnimationFrame(() => {
      hook.readyMs = performance.now() - started;
      document.documentElement.dataset.ready = "yes";
    })
  );
})().catch((error) => {
  const told = document.getElementById("failed");
  told.hidden = false;
  told.textContent = `The map can't be drawn: ${error.message}. It needs a browser of 2023 or newer.`;
  console.error(error);
});
