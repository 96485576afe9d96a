// The live microphone of the page: sends all sound in its order, as fast as the server hears it.
//
// Gradio gives `element` and `server`; `server.hear_voice(message)` answers with HTML. One message
// is under way at a time and holds everything that came since the one before.
const BLOCK_SECONDS = 0.25; // least sound in a message
const WAITING_SECONDS = 10; // sound that waits for a busy server; what is older is lost as silence
const WORKLET = `registerProcessor("emoser", class extends AudioWorkletProcessor {
  process(inputs) { if (inputs[0].length) this.port.postMessage(inputs[0][0].slice()); return true; }
});`;
const button = element.querySelector("button");
const shown = element.querySelector(".emoser-live");
let voice = null; // of the microphone that is on

button.addEventListener("click", () => (voice ? stop(voice) : start()));

async function start() {
  voice = { id: crypto.randomUUID(), waiting: [], count: 0, lost: 0, busy: false, last: false };
  label(true);
  shown.innerHTML = '<p class="emoser-facts" role="status">opening the microphone</p>';
  try {
    await open(voice);
  } catch (error) {
    close(voice);
    const told = document.createElement("p");
    told.className = "emoser-fault";
    told.setAttribute("role", "alert");
    told.textContent = `The microphone cannot be opened (${error.message}); allow it in the ` +
      "browser, and open this page on its own machine or by https.";
    shown.replaceChildren(told);
  }
}

async function open(own) {
  if (!navigator.mediaDevices) throw new Error("this page is not secure");
  own.source = await navigator.mediaDevices.getUserMedia({ audio: {
    echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
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
    voice: own.id, rate: own.context.sampleRate, model: document.querySelector("#model input").value,
    samples: encode(own), lost: own.lost, last: own.last };
  own.lost = 0;
  try {
    const page = await server.hear_voice(message);
    if (page) shown.innerHTML = page;
    if (page.includes("emoser-fault")) close(own);
  } catch (error) {
    close(own);
    shown.textContent = "The server does not answer any more; load this page again.";
  }
  own.busy = false;
  if (own.last && !message.last) send(own);
}

function encode(own) {
  const bytes = new DataView(new ArrayBuffer(own.count * 2));
  let place = 0;
  for (const block of own.waiting) {
    for (const sample of block) {
      bytes.setInt16(place, Math.max(-1, Math.min(1, sample)) * 32767, true);
      place += 2;
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
}

function close(own) {
  own.last = true;
  if (own.source) own.source.getTracks().forEach((track) => track.stop());
  if (own.context && own.context.state !== "closed") own.context.close();
  if (voice === own) voice = null;
  label(false);
}

function label(on) {
  button.setAttribute("aria-pressed", String(on));
  button.textContent = on ? "Turn the microphone off" : "Turn the microphone on";
}
