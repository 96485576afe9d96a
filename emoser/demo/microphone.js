// The live microphone of the page: sends all audio in order, as fast as the server processes it.
//
// Gradio provides `element` and `server`; `server.push_live(message)` returns HTML. One message is
// in flight at a time and contains all audio since the previous one.
const BLOCK_SECONDS = 0.25; // minimum of audio in a message
const WAITING_SECONDS = 10; // maximum of audio kept for a busy server; older audio becomes silence
const WORKLET = `registerProcessor("emoser", class extends AudioWorkletProcessor {
  process(inputs) { if (inputs[0].length) this.port.postMessage(inputs[0][0].slice()); return true; }
});`;
const button = element.querySelector("button");
const shown = element.querySelector(".emoser-live");
let session = null; // while the microphone is on

button.addEventListener("click", () => (session ? stop(session) : start()));

async function start() {
  const own = { id: crypto.randomUUID(), waiting: [], count: 0, lost: 0, busy: false, last: false };
  session = own;
  label(true);
  shown.innerHTML = '<p class="emoser-facts" role="status">Opening the microphone</p>';
  try {
    await open(own);
  } catch (error) {
    if (own.last) return; // turned off meanwhile
    close(own);
    const message = document.createElement("p");
    message.className = "emoser-error";
    message.setAttribute("role", "alert");
    message.textContent = `The microphone cannot be opened (${error.message}); allow it in the ` +
      "browser, and open this page on the same machine or with https.";
    shown.replaceChildren(message);
  }
}

async function open(own) {
  if (!navigator.mediaDevices) throw new Error("this page is not in a secure context");
  own.source = await navigator.mediaDevices.getUserMedia({ audio: {
    echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  if (own.last) return close(own); // turned off meanwhile
  own.context = new AudioContext();
  const address = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
  await own.context.audioWorklet.addModule(address);
  URL.revokeObjectURL(address);
  const node = new AudioWorkletNode(own.context, "emoser", { numberOfOutputs: 0 });
  node.port.onmessage = (event) => receive(own, event.data);
  own.context.createMediaStreamSource(own.source).connect(node);
}

function receive(own, samples) {
  if (own.last) return;
  own.waiting.push(samples);
  own.count += samples.length;
  while (own.count > WAITING_SECONDS * own.context.sampleRate) {
    const oldest = own.waiting.shift();
    own.count -= oldest.length;
    own.lost += oldest.length;
  }
  if (own.count >= BLOCK_SECONDS * own.context.sampleRate) send(own);
}

async function send(own) {
  if (own.busy) return;
  own.busy = true;
  const message = {
    session: own.id, samplingRate: own.context.sampleRate, model: document.querySelector("#model input").value,
    samples: encode(own), lost: own.lost, last: own.last };
  own.lost = 0;
  try {
    const page = await server.push_live(message);
    if (page) shown.innerHTML = page;
    if (page.includes("emoser-error")) close(own);
  } catch (error) {
    close(own);
    shown.textContent = "The server does not respond; reload this page.";
  }
  own.busy = false;
  if (own.last && !message.last) send(own);
}

function encode(own) {
  const bytes = new DataView(new ArrayBuffer(own.count * 2));
  let offset = 0;
  for (const block of own.waiting) {
    for (const sample of block) {
      bytes.setInt16(offset, Math.max(-1, Math.min(1, sample)) * 32767, true);
      offset += 2;
    }
  }
  own.waiting = [];
  own.count = 0;
  let text = "";
  for (const byte of new Uint8Array(bytes.buffer)) text += String.fromCharCode(byte);
  return btoa(text);
}

function stop(own) {
  close(own);
  if (own.context) send(own);
  else shown.replaceChildren();
}

function close(own) {
  own.last = true;
  if (own.source) own.source.getTracks().forEach((track) => track.stop());
  if (own.context && own.context.state !== "closed") own.context.close();
  if (session === own) session = null;
  label(session !== null);
}

function label(on) {
  button.setAttribute("aria-pressed", String(on));
  button.textContent = on ? "Turn the microphone off" : "Turn the microphone on";
}
