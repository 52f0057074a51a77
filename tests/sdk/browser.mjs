// The published package in a page of another origin, in headless Chromium. Bundled as a page's author would: `path` has a
// browser's counterpart, and what only Node has stays out.
//
// Run by `guestline-tests sdk`, which sets GATEWAY_URL and ADMIN_KEY, and installs the packages beside this file.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { build } from "esbuild";
import { Freestyle } from "freestyle-sandboxes";

const baseUrl = process.env.GATEWAY_URL;
const admin = new Freestyle({ baseUrl, apiKey: process.env.ADMIN_KEY });

// The sandbox wants a user namespace, which root and containers have not; the rest keeps it from calling home.
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

/** A busy machine under emulation may take this long to start a browser. */
const PATIENCE = 120_000;

let vmId, config;

before(async () => {
  ({ vmId } = await admin.vms.create({ users: [{ name: "alice" }, { name: "bob" }], idleTimeoutSeconds: null }));
  const { identity } = await admin.identities.create();
  await identity.permissions.vms.grant({ vmId, allowedUsers: ["alice", "bob"] });
  config = { baseUrl, vmId, accessToken: (await identity.tokens.create()).token };
});

after(async () => {
  if (vmId) await admin.vms.delete({ vmId });
});

async function bundle() {
  const built = await build({
    entryPoints: ["page.mjs"],
    bundle: true,
    format: "esm",
    write: false,
    logLevel: "error",
    alias: { path: "path-browserify" },
    define: { "process.env": "{}" },
    external: ["glob", "fs", "fs/promises"],
  });
  return built.outputFiles[0].text;
}

/** Serves the page, and resolves with what it tells. */
function serve(script, listening) {
  return new Promise((resolve, reject) => {
    const server = createServer(async (request, response) => {
      const answers = {
        "/": ["text/html", '<!doctype html><script type="module" src="/page.js"></script>'],
        "/page.js": ["text/javascript", script],
        "/config": ["application/json", JSON.stringify(config)],
      };
      if (request.url === "/result") {
        let body = "";
        for await (const chunk of request) body += chunk;
        response.end();
        resolve(JSON.parse(body));
        server.close();
        return;
      }
      const [type, text] = answers[request.url] ?? ["text/plain", ""];
      response.writeHead(answers[request.url] ? 200 : 404, { "content-type": `${type}; charset=utf-8` }).end(text);
    });
    server.listen(0, "127.0.0.1", () => listening(server.address().port));
    setTimeout(() => reject(new Error("the page told nothing in time")), PATIENCE).unref();
  });
}

test("a page of another origin does with a token what it was granted, and no more", async () => {
  const profile = await mkdtemp(join(tmpdir(), "guestline-chromium-"));
  let browser;
  try {
    let errors = "";
    const told = await serve(await bundle(), (port) => {
      browser = spawn("chromium", [...FLAGS, `--user-data-dir=${profile}`, `http://127.0.0.1:${port}/`], {
        stdio: ["ignore", "ignore", "pipe"],
      });
      browser.stderr.on("data", (data) => (errors += data));
    }).catch((error) => {
      throw new Error(`${error.message}; chromium: ${errors.slice(-2000)}`);
    });
    assert.equal(told.failed, undefined);
    assert.notEqual(told.origin, new URL(baseUrl).origin);
    assert.ok(told.root.includes("home"), told.root);
    assert.deepEqual([told.text, told.alice, told.bob], ["grüße", "alice\n", "bob\n"]);
    assert.deepEqual(told.vms, [vmId]);
    assert.deepEqual(
      [told.asRoot, told.create, told.elsewhere, told.missing],
      ["VmAccessDeniedError", "ForbiddenError", "VmAccessDeniedError", "FileNotFoundError"],
    );
    assert.deepEqual([told.socket.type, told.socket.statusCode], ["exited", 0]);
    assert.match(told.socket.output, /got x\r\n20 70/);
  } finally {
    browser?.kill("SIGKILL");
    if (browser) await new Promise((ended) => browser.on("close", ended));
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
});
