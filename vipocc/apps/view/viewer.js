"use strict";
// Draws scenes of cubes, points, lines and pictures with WebGL 2. Data comes in the level frame (x right, y down,
// z forward, metres); it is drawn with y up and z towards the viewer, as OpenGL has it.

const canvas = document.querySelector("canvas");
const gl = canvas.getContext("webgl2", { antialias: true, alpha: true, preserveDrawingBuffer: true });
const page = JSON.parse(document.getElementById("page").textContent);
const shown = {}; // by layer name, kept from frame to frame
let drawn = [];   // of the present frame: { layer, program, draw }
let wanted = false;

const VIEWS = {
  "behind": { target: [0, 0, -11], yaw: 0.45, pitch: 0.5, distance: 22 },
  "camera": { target: [0, -0.1, -1.2], yaw: 0, pitch: 0.085, distance: 1.2 },
  "above": { target: [0, 0, -12], yaw: 0, pitch: 1.5607, distance: 30 },
  "side": { target: [0, 0, -12], yaw: Math.PI / 2, pitch: 0.06, distance: 24 },
};
let view = structuredClone(VIEWS.behind);

// Matrices, column by column as WebGL takes them -----------------------------------------------------------------------

function perspective(angle, aspect, near, far) {
  const f = 1 / Math.tan(angle / 2), d = near - far;
  return [f / aspect, 0, 0, 0, 0, f, 0, 0, 0, 0, (far + near) / d, -1, 0, 0, 2 * far * near / d, 0];
}

function lookFrom(v) {
  const [cy, sy, cp, sp] = [Math.cos(v.yaw), Math.sin(v.yaw), Math.cos(v.pitch), Math.sin(v.pitch)];
  const right = [cy, 0, -sy], back = [sy * cp, sp, cy * cp], up = [-sy * sp, cp, -cy * sp];
  const eye = v.target.map((t, i) => t + v.distance * back[i]);
  const dot = (a) => -(a[0] * eye[0] + a[1] * eye[1] + a[2] * eye[2]);
  return { eye, right, up, matrix: [right[0], up[0], back[0], 0, right[1], up[1], back[1], 0, right[2], up[2], back[2],
    0, dot(right), dot(up), dot(back), 1] };
}

function times(a, b) {
  const out = new Array(16).fill(0);
  for (let c = 0; c < 4; c++) for (let r = 0; r < 4; r++) for (let k = 0; k < 4; k++) out[c * 4 + r] += a[k * 4 + r] * b[c * 4 + k];
  return out;
}

// Programs --------------------------------------------------------------------------------------------------------------

const TO_GL = "vec3 turned(vec3 p) { return vec3(p.x, -p.y, -p.z); }\n";
const SHADERS = {
  cubes: [`in vec3 corner; in vec3 normal; in vec3 index; in vec3 colour; uniform vec3 origin, steps; out vec3 c;
    void main() { vec3 p = origin + steps * (index + 0.96 * corner);
      float light = 0.62 + 0.38 * max(0.0, dot(normal, normalize(vec3(0.45, -0.8, -0.4))));
      c = colour * light; gl_Position = camera * vec4(turned(p), 1.0); }`,
    "in vec3 c; out vec4 o; void main() { o = vec4(c, 1.0); }"],
  points: [`in vec3 index; in vec3 colour; uniform float step_; uniform float scale; out vec3 c;
    void main() { c = colour; gl_Position = camera * vec4(turned(index * step_), 1.0);
      gl_PointSize = clamp(scale / gl_Position.w, 1.5, 9.0); }`,
    "in vec3 c; out vec4 o; void main() { vec2 d = gl_PointCoord - 0.5; if (dot(d, d) > 0.25) discard; o = vec4(c, 1.0); }"],
  lines: ["in vec3 end; void main() { gl_Position = camera * vec4(turned(end), 1.0); }",
    "uniform vec3 colour; out vec4 o; void main() { o = vec4(colour, 1.0); }"],
  picture: ["in vec3 end; in vec2 at; out vec2 t; void main() { t = at; gl_Position = camera * vec4(turned(end), 1.0); }",
    "in vec2 t; uniform sampler2D image; out vec4 o; void main() { o = vec4(texture(image, t).rgb, 1.0); }"],
};
const programs = {};

function program(kind) {
  if (programs[kind]) return programs[kind];
  const made = gl.createProgram(), head = "#version 300 es\nprecision highp float;\n";
  SHADERS[kind].forEach((source, fragment) => {
    const shader = gl.createShader(fragment ? gl.FRAGMENT_SHADER : gl.VERTEX_SHADER);
    gl.shaderSource(shader, head + (fragment ? "" : "uniform mat4 camera;\n" + TO_GL) + source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(kind + ": " + gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  });
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(kind + ": " + gl.getProgramInfoLog(made));
  return (programs[kind] = made);
}

// Layers ----------------------------------------------------------------------------------------------------------------

function bytes(text) { return Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer; }

function cube() {
  const out = [];
  for (let axis = 0; axis < 3; axis++) for (const sign of [-1, 1]) {
    const n = [0, 0, 0]; n[axis] = sign;
    for (const [a, b] of [[-1, -1], [1, -1], [1, 1], [-1, -1], [1, 1], [-1, 1]]) {
      const p = [0, 0, 0]; p[axis] = sign / 2; p[(axis + 1) % 3] = a / 2; p[(axis + 2) % 3] = b / 2;
      out.push(...p, ...n);
    }
  }
  return new Float32Array(out);
}

function attribute(made, name, data, size, type, normalised = false, stride = 0, offset = 0, divisor = 0) {
  const buffer = gl.createBuffer(), place = gl.getAttribLocation(made, name);
  gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
  gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
  gl.enableVertexAttribArray(place);
  gl.vertexAttribPointer(place, size, type, normalised, stride, offset);
  gl.vertexAttribDivisor(place, divisor);
  return buffer;
}

const UPLOAD = {
  cubes(layer, made) {
    const shape = cube();
    const buffers = [attribute(made, "corner", shape, 3, gl.FLOAT, false, 24, 0),
      attribute(made, "normal", shape, 3, gl.FLOAT, false, 24, 12),
      attribute(made, "index", bytes(layer.index), 3, gl.UNSIGNED_SHORT, false, 0, 0, 1),
      attribute(made, "colour", bytes(layer.colours), 3, gl.UNSIGNED_BYTE, true, 0, 0, 1)];
    return { buffers, draw() {
      gl.uniform3fv(gl.getUniformLocation(made, "origin"), layer.origin);
      gl.uniform3fv(gl.getUniformLocation(made, "steps"), layer.steps);
      gl.drawArraysInstanced(gl.TRIANGLES, 0, 36, layer.count);
    } };
  },
  points(layer, made) {
    const buffers = [attribute(made, "index", bytes(layer.index), 3, gl.SHORT),
      attribute(made, "colour", bytes(layer.colours), 3, gl.UNSIGNED_BYTE, true)];
    return { buffers, draw() {
      gl.uniform1f(gl.getUniformLocation(made, "step_"), layer.step);
      gl.uniform1f(gl.getUniformLocation(made, "scale"), canvas.height * 0.045);
      gl.drawArrays(gl.POINTS, 0, layer.count);
    } };
  },
  lines(layer, made) {
    const buffers = [attribute(made, "end", bytes(layer.ends), 3, gl.FLOAT)];
    return { buffers, draw() {
      gl.uniform3fv(gl.getUniformLocation(made, "colour"), layer.colour.map((c) => c / 255));
      gl.drawArrays(gl.LINES, 0, layer.count * 2);
    } };
  },
  picture(layer, made) {
    const order = [0, 1, 2, 0, 2, 3], at = [[0, 0], [1, 0], [1, 1], [0, 1]];
    const buffers = [attribute(made, "end", new Float32Array(order.flatMap((i) => layer.corners[i])), 3, gl.FLOAT),
      attribute(made, "at", new Float32Array(order.flatMap((i) => at[i])), 2, gl.FLOAT)];
    const texture = gl.createTexture(), image = new Image();
    const ready = new Promise((done) => { image.onload = image.onerror = () => {
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, image);
      gl.generateMipmap(gl.TEXTURE_2D);
      done();
    }; });
    image.src = layer.source;
    return { buffers, texture, ready, draw() {
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.drawArrays(gl.TRIANGLES, 0, 6);
    } };
  },
};

function upload(layer) {
  const made = program(layer.kind), array = gl.createVertexArray();
  gl.bindVertexArray(array);
  const one = UPLOAD[layer.kind](layer, made);
  gl.bindVertexArray(null);
  return { layer, made, array, ...one };
}

function release(one) {
  one.buffers.forEach((buffer) => gl.deleteBuffer(buffer));
  if (one.texture) gl.deleteTexture(one.texture);
  gl.deleteVertexArray(one.array);
}

// Drawing ---------------------------------------------------------------------------------------------------------------

function redraw() {
  if (wanted) return;
  wanted = true;
  requestAnimationFrame(() => {
    wanted = false;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(canvas.clientHeight * ratio);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    const camera = times(perspective(0.9, canvas.width / canvas.height, 0.05, 500), lookFrom(view).matrix);
    for (const one of drawn) {
      if (!shown[one.layer.name] || !one.layer.count && one.layer.kind !== "picture") continue;
      gl.useProgram(one.made);
      gl.uniformMatrix4fv(gl.getUniformLocation(one.made, "camera"), false, camera);
      gl.bindVertexArray(one.array);
      one.draw();
    }
    gl.bindVertexArray(null);
  });
}

// The panel -------------------------------------------------------------------------------------------------------------

function element(name, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

function trouble(text) { document.getElementById("trouble").textContent = text; }

async function show(scene) {
  drawn.forEach(release);
  for (const layer of scene.layers) shown[layer.name] ??= layer.shown;
  drawn = scene.layers.map(upload);
  document.querySelector("h1").textContent = document.title = scene.title;
  document.getElementById("layers").replaceChildren(...scene.layers.map((layer) => {
    const box = element("input", { type: "checkbox", checked: shown[layer.name] });
    box.addEventListener("change", () => { shown[layer.name] = box.checked; redraw(); });
    const count = layer.count === undefined ? "" : layer.count.toLocaleString("en");
    const row = element("label", { className: "layer" }, box, layer.name, element("span", { className: "count" }, count));
    if (layer.note) row.append(element("small", {}, layer.note));
    return row;
  }));
  document.querySelector("dl").replaceChildren(...Object.entries(scene.facts).flatMap(
    ([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  await Promise.all(drawn.map((one) => one.ready));
  redraw();
}

const cache = new Map();

function fetched(number) {
  if (!cache.has(number)) {
    if (cache.size > 12) cache.delete(cache.keys().next().value);
    cache.set(number, page.scenes ? Promise.resolve(page.scenes[number]) : fetch(`scene/${number}.json`).then(async (answer) => {
      if (!answer.ok) { cache.delete(number); throw new Error(await answer.text()); }
      return answer.json();
    }));
  }
  return cache.get(number);
}

let present = -1, asked = 0, playing = null;

async function go(number) {
  asked = number;
  document.body.dataset.state = "loading";
  try {
    const scene = await fetched(number);
    if (asked !== number) return; // another one was asked for meanwhile
    await show(scene);
    trouble("");
    present = number;
    document.querySelector("#time input").value = number;
    document.body.dataset.state = "ready";
    if (!page.scenes && number + 1 < page.count) fetched(number + 1).catch(() => {});
  } catch (error) {
    trouble(error.message);
    document.body.dataset.state = "failed";
  }
}

function play() {
  const button = document.getElementById("play");
  if (playing) { clearTimeout(playing); playing = null; button.textContent = "Play"; return; }
  button.textContent = "Stop";
  const next = async () => { await go((present + 1) % page.count); if (playing) playing = setTimeout(next, 120); };
  playing = setTimeout(next, 0);
}

function start() {
  const buttons = Object.keys(VIEWS).map((name) => {
    const button = element("button", { type: "button" }, name[0].toUpperCase() + name.slice(1));
    button.addEventListener("click", () => { view = structuredClone(VIEWS[name]); redraw(); });
    return button;
  });
  document.querySelector(".views").append(...buttons);
  const time = document.getElementById("time"), slider = time.querySelector("input");
  time.hidden = page.count < 2;
  slider.max = page.count - 1;
  slider.addEventListener("input", () => go(Number(slider.value)));
  document.getElementById("play").addEventListener("click", play);
  if (VIEWS[page.view]) view = structuredClone(VIEWS[page.view]);

  const fingers = new Map();
  let gap = 0;
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); fingers.set(event.pointerId, event); gap = 0; });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
    fingers.set(event.pointerId, event);
    if (fingers.size === 2) {
      const [a, b] = [...fingers.values()], now = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
      if (gap) zoom(gap / now);
      gap = now;
    } else if (event.buttons === 1 && !event.shiftKey) {
      view.yaw -= dx * 0.006;
      view.pitch = Math.max(-1.5607, Math.min(1.5607, view.pitch + dy * 0.006));
    } else {
      const { right, up } = lookFrom(view), step = view.distance * 0.97 / canvas.clientHeight;
      view.target = view.target.map((t, i) => t - step * (dx * right[i] - dy * up[i]));
    }
    redraw();
  });
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(event.deltaY * 0.0012)); }, { passive: false });
  addEventListener("keydown", (event) => {
    if (event.target instanceof HTMLInputElement && event.target.type === "range") return;
    if (event.key === "ArrowRight" && present + 1 < page.count) go(present + 1);
    if (event.key === "ArrowLeft" && present > 0) go(present - 1);
    const name = { 1: "behind", 2: "camera", 3: "above", 4: "side" }[event.key];
    if (name) { view = structuredClone(VIEWS[name]); redraw(); }
  });
  addEventListener("resize", redraw);
  go(0);
}

function zoom(by) { view.distance = Math.max(0.3, Math.min(300, view.distance * by)); redraw(); }

if (gl) start();
else { trouble("This browser has no WebGL 2, which the scene is drawn with."); document.body.dataset.state = "failed"; }
