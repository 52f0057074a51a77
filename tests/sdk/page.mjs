// A page of another origin with nothing but a token: what it does with the published SDK, and with the exec WebSocket. It tells
// its own server what came of it (`browser.mjs`).

import { Buffer } from "buffer/";
import { Errors, Freestyle } from "freestyle-sandboxes";

// What the package takes from Node and a browser has not.
globalThis.Buffer = Buffer;

const { baseUrl, accessToken, vmId } = await (await fetch("/config")).json();
// The package calls `fetch` as a method of its own, which browsers refuse for theirs.
const client = new Freestyle({ baseUrl, accessToken, fetch: (...request) => fetch(...request) });
const as = (username) => client.vms.ref({ vmId }).user({ username });

/** The SDK's own class of what a call fails with. */
async function refusal(call) {
  try {
    await call;
    return "nothing";
  } catch (error) {
    const classes = Object.entries(Errors).filter(([, kind]) => typeof kind === "function" && error instanceof kind);
    return classes.map(([name]) => name)[0] ?? String(error);
  }
}

/** A program over the WebSocket, where a page's credential is a subprotocol. */
function run(username, start, input) {
  return new Promise((resolve, reject) => {
    const url = `${baseUrl.replace("http", "ws")}/v1/vms/${vmId}/exec`;
    const protocols = ["guestline.exec.v1", `guestline.token.${accessToken}`, `guestline.user.${username}`];
    const socket = new WebSocket(url, protocols);
    let output = "";
    socket.binaryType = "arraybuffer";
    socket.onerror = () => reject(new Error("the socket failed"));
    socket.onopen = () => {
      socket.send(JSON.stringify(start));
      socket.send(new TextEncoder().encode(input));
    };
    socket.onmessage = ({ data }) => {
      if (typeof data !== "string") {
        output += new TextDecoder().decode(data.slice(1));
        return;
      }
      const said = JSON.parse(data);
      if (said.type !== "started") resolve({ output, ...said });
    };
  });
}

async function everything() {
  const alice = as("alice");
  await alice.fs.writeTextFile("/home/alice/from-a-page", "grüße");
  return {
    origin: location.origin,
    root: (await alice.fs.readDir("/")).map(({ name }) => name),
    text: await alice.fs.readTextFile("/home/alice/from-a-page"),
    alice: (await alice.exec("id -un")).stdout,
    bob: (await as("bob").exec("id -un")).stdout,
    exists: await as("bob").fs.exists("/home/alice/from-a-page"),
    vms: (await client.vms.list()).vms.map(({ id }) => id),
    asRoot: await refusal(as("root").exec("id")),
    create: await refusal(client.vms.create()),
    elsewhere: await refusal(client.vms.ref({ vmId: "a".repeat(20) }).user({ username: "alice" }).exec("id")),
    missing: await refusal(alice.fs.readFile("/home/alice/none")),
    socket: await run("alice", { command: "read line; echo got $line; stty size", terminal: { columns: 70, rows: 20 } }, "x\n"),
  };
}

const told = await everything().catch((error) => ({ failed: String(error?.stack ?? error) }));
await fetch("/result", { method: "POST", body: JSON.stringify(told) });
