// What a client does that has nothing but a token: the published `freestyle-sandboxes` package, with its baseUrl set to a
// gateway. Each line is shown, run and checked. `cargo xtask demo` runs this.
//
// Set GATEWAY_URL, TOKEN and VM, and name a part: use, wake or revoked.

import assert from "node:assert/strict";
import { Errors, Freestyle } from "freestyle-sandboxes";

const client = new Freestyle({ baseUrl: process.env.GATEWAY_URL, accessToken: process.env.TOKEN });
const vm = client.vms.ref({ vmId: process.env.VM });
const alice = vm.user({ username: "alice" });
const bob = vm.user({ username: "bob" });

/** Shows a line of code and what it gives. */
async function line(text, call, expected) {
  console.log(`> ${text}`);
  const result = await call();
  console.log(`  ${typeof result === "string" ? result.trimEnd() : JSON.stringify(result)}`);
  assert.ok(expected(result), `not as it should be: ${JSON.stringify(result)}`);
}

/** The same for one that must fail with that error. */
async function refused(text, call, kind) {
  console.log(`> ${text}`);
  await assert.rejects(call, (error) => {
    console.log(`  ${error.constructor.name}: ${error.body?.message ?? error.message}`);
    return error instanceof kind;
  });
}

const names = async (user) => (await user.fs.readDir("/")).map(({ name }) => name).sort().join(" ");
const stdout = async (user, command) => (await user.exec(command)).stdout;

const parts = {
  async use() {
    await line('alice.fs.readDir("/")', () => names(alice), (text) => text.includes("home"));
    await line('bob.fs.readDir("/")', () => names(bob), (text) => text.includes("home"));
    await line('alice.exec("id")', () => stdout(alice, "id"), (text) => text.startsWith("uid=1000(alice)"));
    await line('bob.exec("id")', () => stdout(bob, "id"), (text) => text.startsWith("uid=1001(bob)"));
    const write = () => alice.fs.writeTextFile("/home/alice/diary", "dear diary");
    await line('alice.fs.writeTextFile("/home/alice/diary", "dear diary")', async () => (await write()) ?? "written", Boolean);
    await line('alice.fs.readTextFile("/home/alice/diary")', () => alice.fs.readTextFile("/home/alice/diary"), (text) => text === "dear diary");
    await refused('bob.fs.readTextFile("/home/alice/diary")', () => bob.fs.readTextFile("/home/alice/diary"), Errors.ForbiddenError);
    await refused('vm.exec("id")   // root is not in the grant', () => vm.exec("id"), Errors.VmAccessDeniedError);
    await refused("client.vms.create()", () => client.vms.create(), Errors.ForbiddenError);
  },
  async wake() {
    await line('bob.exec("uptime")', () => stdout(bob, "uptime"), Boolean);
    await line('alice.fs.readTextFile("/home/alice/diary")', () => alice.fs.readTextFile("/home/alice/diary"), (text) => text === "dear diary");
  },
  async revoked() {
    await refused('alice.exec("id")', () => alice.exec("id"), Errors.UnauthorizedErrorError);
  },
};

await parts[process.argv[2]]();
