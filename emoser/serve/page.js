// The page of the service: lists the endpoints, sends a file, and streams the microphone.
const CHUNK_MILLISECONDS = 250;
const byId = (id) => document.getElementById(id);
const token = () => byId("token").value.trim();
const lines = [];
let recorder = null; // while the microphone is on

function show(text) {
  byId("result").hidden = false;
  byId("result").textContent = text;
}

async function listEndpoints() {
  const { paths } = await (await fetch("openapi.json")).json();
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, { summary }] of Object.entries(methods)) {
      const item = document.createElement("li");
      const code = document.createElement("code");
      code.textContent = `${method.toUpperCase()} ${path}`;
      item.append(code, ` ${summary}`);
      byId("endpoints").append(item);
      if (method === "post") byId("endpoint").append(new Option(path));
    }
  }
}

async function send(event) {
  event.preventDefault();
  show("Waiting for the answer");
  const body = new FormData();
  body.append("file", byId("file").files[0]);
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  try {
    const answer = await fetch(byId("endpoint").value.slice(1), { method: "POST", body, headers });
    show(JSON.stringify(await answer.json(), null, 2));
  } catch (error) {
    show(`The service does not respond (${error.message}).`);
  }
}

async function startMicrophone() {
  const source = await navigator.mediaDevices.getUserMedia({ audio: {
    echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  const protocols = token() ? ["emoser", `bearer.${token()}`] : ["emoser"];
  const address = new URL("v1/stream?hop_seconds=0.5", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address, protocols);
  recorder = new MediaRecorder(source);
  const sending = [];
  recorder.ondataavailable = ({ data }) => sending.push(
    data.arrayBuffer().then((bytes) => socket.readyState === WebSocket.OPEN && socket.send(bytes)));
  recorder.onstop = async () => {
    source.getTracks().forEach((track) => track.stop());
    await Promise.all(sending);
    if (socket.readyState === WebSocket.OPEN) socket.send("end");
    recorder = null;
    label();
  };
  socket.onopen = () => recorder.start(CHUNK_MILLISECONDS);
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    lines.push(message.type === "error" ? message.error.message : data);
    show(lines.slice(-20).join("\n"));
  };
  socket.onclose = () => recorder && recorder.state !== "inactive" && recorder.stop();
  lines.length = 0;
  label();
}

function label() {
  byId("microphone").setAttribute("aria-pressed", String(recorder !== null));
  byId("microphone").textContent = `Turn the microphone ${recorder ? "off" : "on"}`;
}

async function toggle() {
  if (recorder) {
    if (recorder.state !== "inactive") recorder.stop();
    return;
  }
  try {
    await startMicrophone();
  } catch (error) {
    show(`The microphone cannot be opened (${error.message}); allow it in the browser, and open ` +
      "this page on the same machine or with https.");
  }
}

byId("upload").addEventListener("submit", send);
byId("microphone").addEventListener("click", toggle);
listEndpoints();
