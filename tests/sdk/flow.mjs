// The published `freestyle-sandboxes` package, unmodified, with only its baseUrl set to a gateway that runs machines:
// create → files → exec → permissions → a client that has nothing but a token.
//
// Run by `guestline-tests sdk`, which sets GATEWAY_URL, ADMIN_KEY and IMAGE, and installs the package beside this file.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Errors, Freestyle } from "freestyle-sandboxes";

const baseUrl = process.env.GATEWAY_URL;
const admin = new Freestyle({ baseUrl, apiKey: process.env.ADMIN_KEY });

const debian = process.env.IMAGE === "debian";
const onDebian = { skip: !debian && "the minimal image has no systemd" };

let vmId, vm, identity, tokenId, token, client;

// As the SDK's VmSpec has them: one that only has to run once, and one that wants it.
const services = [
  { name: "first", mode: "oneshot", exec: ["/bin/sh -c 'echo first > /opt/order'"], deleteAfterSuccess: true },
  { name: "second", mode: "service", exec: ["/bin/sh -c 'echo second >> /opt/order; exec sleep 1000'"], after: ["first.service"], requires: ["first.service"] },
];

before(async () => {
  const created = await admin.vms.create({
    users: [{ name: "alice" }, { name: "bob" }],
    additionalFiles: { "/opt/hello.sh": { content: "#!/bin/sh\necho hello\n", executable: true } },
    idleTimeoutSeconds: null,
    template: debian ? { systemd: { services } } : {},
  });
  vmId = created.vmId;
  vm = created.vm;
  identity = (await admin.identities.create()).identity;
  await identity.permissions.vms.grant({ vmId, allowedUsers: ["alice", "bob"] });
  const issued = await identity.tokens.create();
  ({ tokenId, token } = issued);
  client = new Freestyle({ baseUrl, accessToken: issued.token });
});

after(async () => {
  if (vmId) await admin.vms.delete({ vmId });
});

/** Asks until the answer is yes; what follows says what is wrong if it never is. */
async function eventually(ask) {
  for (let tries = 0; tries < 600 && !(await ask()); tries += 1) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

const as = (username) => client.vms.ref({ vmId }).user({ username });

test("the admin creates, lists and looks at machines", async () => {
  const list = await admin.vms.list();
  assert.ok(list.vms.some((one) => one.id === vmId && one.state === "running"));
  assert.equal(list.runningCount, 1);
  assert.equal((await vm.getInfo()).state, "running");
});

test("files that the machine was created with are there", async () => {
  const said = await vm.exec("/opt/hello.sh");
  assert.deepEqual([said.stdout, said.statusCode], ["hello\n", 0]);
});

test("a token lists directories as each user of its grant", async () => {
  for (const username of ["alice", "bob"]) {
    const files = await as(username).fs.readDir("/");
    assert.ok(files.some(({ name, kind }) => name === "home" && kind === "directory"));
  }
});

test("a token runs commands as each user of its grant", async () => {
  for (const [username, uid] of [["alice", "1000"], ["bob", "1001"]]) {
    const id = await as(username).exec("id -u");
    assert.deepEqual([id.stdout.trim(), id.stderr, id.statusCode], [uid, "", 0]);
  }
  assert.equal((await as("alice").exec({ command: "exit 7" })).statusCode, 7);
});

test("files are written, read, looked at and removed", async () => {
  const { fs } = as("alice");
  await fs.mkdir("/home/alice/a b/c", true);
  assert.equal(await fs.exists("/home/alice/a b/c"), true);
  assert.equal(await fs.exists("/home/alice/none"), false);
  const bytes = Buffer.from([0, 255, 128, 10]);
  await fs.writeFile("/home/alice/a b/bytes", bytes);
  assert.deepEqual(await fs.readFile("/home/alice/a b/bytes"), bytes);
  await fs.writeTextFile("/home/alice/a b/täxt", "grüße");
  assert.equal(await fs.readTextFile("/home/alice/a b/täxt"), "grüße");
  const stat = await fs.stat("/home/alice/a b/täxt");
  assert.deepEqual([stat.isFile, stat.isDirectory, stat.size, stat.owner], [true, false, 7, "alice"]);
  const names = (await fs.readDir("/home/alice/a b")).map(({ name }) => name).sort();
  assert.deepEqual(names, ["bytes", "c", "täxt"]);
  await fs.remove("/home/alice/a b", true);
  assert.equal(await fs.exists("/home/alice/a b"), false);
});

test("terminals are listed, and what they were written is read", async () => {
  // The SDK opens none; its gateway does.
  const opened = await fetch(`${baseUrl}/v1/vms/${vmId}/terminals`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "x-freestyle-vm-linux-user-id": "alice" },
    body: JSON.stringify({ name: "build", command: "printf '\\033[1mdone\\033[0m\\n'; exec sleep 1000" }),
  });
  assert.equal(opened.status, 200);
  const { terminals } = as("alice");
  const listed = await terminals.list();
  assert.deepEqual(listed.terminals.map(({ name, status }) => [name, status]), [["build", "running"]]);
  await eventually(async () => (await terminals.getLogs({ terminalId: "build" })).logs.length > 0);
  const { logs } = await terminals.getLogs({ terminalId: "build" });
  assert.deepEqual(logs, [{ line: "done", timestamp: null }]);
  const { output } = await terminals.getOutput({ terminalId: "build" });
  assert.equal(output, "\u001b[1mdone\u001b[0m\r\n");
  assert.deepEqual(await as("bob").terminals.list(), { terminals: [] });
});

test("the guest's kernel keeps bob out of alice's files", async () => {
  await as("alice").fs.writeTextFile("/home/alice/diary", "dear diary");
  await assert.rejects(as("bob").fs.readFile("/home/alice/diary"), Errors.ForbiddenError);
  await assert.rejects(as("alice").fs.readFile("/home/alice/none"), Errors.FileNotFoundError);
});

test("a token is nobody outside its list", async () => {
  await assert.rejects(as("root").exec("id"), Errors.VmAccessDeniedError);
  await assert.rejects(client.vms.ref({ vmId }).exec("id"), Errors.VmAccessDeniedError);
  await identity.permissions.vms.update({ vmId, allowedUsers: ["alice", "bob", "mallory"] });
  await assert.rejects(as("mallory").exec("id"), Errors.UserNotFoundError);
  await identity.permissions.vms.update({ vmId, allowedUsers: ["alice", "bob"] });
});

test("a token can create, reach and manage nothing else", async () => {
  await assert.rejects(client.vms.create(), Errors.ForbiddenError);
  await assert.rejects(client.identities.create(), Errors.ForbiddenError);
  await assert.rejects(client.vms.ref({ vmId: "a".repeat(20) }).user({ username: "alice" }).exec("id"), Errors.VmAccessDeniedError);
  await assert.rejects(client.vms.ref({ vmId }).stop(), Errors.ForbiddenError);
  assert.deepEqual((await client.vms.list()).vms.map(({ id }) => id), [vmId]);
});

test("errors are the SDK's own classes for the admin too", async () => {
  await assert.rejects(admin.vms.ref({ vmId: "a".repeat(20) }).getInfo(), Errors.VmNotFoundError);
  await assert.rejects(identity.permissions.vms.grant({ vmId }), Errors.PermissionAlreadyExistsError);
  await assert.rejects(identity.permissions.vms.update({ vmId }), Errors.InvalidParametersError);
  await assert.rejects(identity.permissions.vms.get({ vmId: "a".repeat(20) }), Errors.VmPermissionNotFoundError);
  await assert.rejects(admin.vms.create({ users: [{ name: "x" }, { name: "x" }] }), Errors.DuplicateUserNameError);
  const stranger = new Freestyle({ baseUrl, accessToken: "gl_wrong" });
  await assert.rejects(stranger.vms.ref({ vmId }).exec("id"), Errors.UnauthorizedErrorError);
});

test("every code of the gateway's is a class of the SDK's, but for what the SDK has no word for", async () => {
  const document = await (await fetch(`${baseUrl}/openapi.json`)).json();
  const ours = document.components.schemas.Error.properties.code.enum;
  const theirs = new Set(Object.values(Errors).map((kind) => kind?.code));
  const unknown = ours.filter((code) => !theirs.has(code)).sort();
  assert.deepEqual(unknown, [
    "EXEC_TIMED_OUT",
    "METHOD_NOT_ALLOWED",
    "SSH_KEY_ALREADY_EXISTS",
    "TERMINAL_ALREADY_EXISTS",
    "TERMINAL_EXITED",
    "TERMINAL_NOT_FOUND",
    "TERMINAL_NOT_READING",
    "UNIMPLEMENTED",
  ]);
});

test("how long a machine stays awake is not a token's choice", async () => {
  await assert.rejects(as("alice").start({ idleTimeoutSeconds: 1 }), Errors.ForbiddenError);
  await as("alice").start();
});

test("permissions and tokens are listed", async () => {
  const { permissions, total } = await identity.permissions.vms.list();
  assert.deepEqual([permissions.length, permissions[0].vmId, permissions[0].allowedUsers, total], [1, vmId, ["alice", "bob"], 1]);
  assert.deepEqual((await identity.tokens.list()).tokens, [{ id: tokenId }]);
  assert.ok((await admin.identities.list()).total >= 1);
});

test("services that the machine was created with have started in their order", onDebian, async () => {
  const root = admin.vms.ref({ vmId });
  assert.equal((await root.systemd.getStatus({ serviceId: "second" })).activeState, "active");
  await assert.rejects(root.systemd.getStatus({ serviceId: "first" }), Errors.ServiceNotFoundError);
  const order = () => root.fs.readTextFile("/opt/order");
  await eventually(async () => (await order()).endsWith("second\n"));
  assert.equal(await order(), "first\nsecond\n");
});

test("a machine whose service fails is not created, and the error says why", onDebian, async () => {
  const broken = { name: "broken", mode: "oneshot", exec: ["/bin/sh -c 'echo the reason; exit 3'"] };
  await assert.rejects(admin.vms.create({ systemd: { services: [broken] } }), (error) => {
    assert.ok(error instanceof Errors.VmSetupFailedError, String(error));
    assert.match(error.body.failedReason, /broken/);
    assert.equal(error.body.diagnostics.serviceStates[0].activeState, "failed");
    assert.match(error.body.diagnostics.failedServiceLogs[0].log, /the reason/);
    return true;
  });
  assert.equal((await admin.vms.list()).totalCount, 1);
});

test("services are created, looked at, commanded and removed", onDebian, async () => {
  const root = admin.vms.ref({ vmId });
  const spec = { name: "hello", mode: "service", exec: ["/bin/sh -c 'echo hello $WHO; sleep 1000'"], env: { WHO: "you" } };
  assert.equal((await root.systemd.create(spec)).success, true);
  await assert.rejects(root.systemd.create(spec), Errors.ServiceAlreadyExistsError);
  assert.equal((await root.systemd.getStatus({ serviceId: "hello" })).activeState, "active");
  assert.ok((await root.systemd.list()).services.some(({ name }) => name === "hello"));
  // It is active before it has said anything, and what it says comes by way of the journal.
  let logs;
  const hasSaidHello = () => logs.logs.some(({ message }) => message.includes("hello you"));
  await eventually(async () => {
    logs = await root.systemd.getLogs({ serviceId: "hello", lines: 10 });
    return hasSaidHello();
  });
  assert.ok(hasSaidHello(), JSON.stringify(logs));
  const stopped = await root.systemd.stop({ services: [{ id: "hello" }] });
  assert.deepEqual(stopped.results.map(({ serviceId, success }) => [serviceId, success]), [["hello", true]]);
  assert.equal((await root.systemd.getStatus({ serviceId: "hello" })).activeState, "inactive");
  assert.equal((await root.systemd.delete({ serviceId: "hello" })).success, true);
  await assert.rejects(root.systemd.getStatus({ serviceId: "hello" }), Errors.ServiceNotFoundError);
  await assert.rejects(root.systemd.create({ name: "a/b", mode: "service", exec: ["x"] }), Errors.ServiceNameInvalidCharsError);
  await assert.rejects(as("alice").systemd.create({ ...spec, name: "mine" }), Errors.ForbiddenError);
});

test("a command that takes too long says so", async () => {
  await assert.rejects(as("alice").exec({ command: "sleep 100", timeoutMs: 500 }), /EXEC_TIMED_OUT/);
});

test("a suspended machine wakes with what it had in memory", async () => {
  await as("alice").exec("echo kept > /tmp/in-memory");
  const before = (await as("alice").exec("cat /proc/sys/kernel/random/boot_id")).stdout;
  await vm.suspend();
  assert.equal((await vm.getInfo()).state, "suspended");
  await assert.rejects(as("root").exec("id"), Errors.VmAccessDeniedError);
  assert.equal((await vm.getInfo()).state, "suspended");
  assert.equal(await as("alice").fs.readTextFile("/tmp/in-memory"), "kept\n");
  assert.equal((await as("alice").exec("cat /proc/sys/kernel/random/boot_id")).stdout, before);
  assert.equal((await vm.getInfo()).state, "running");
});

test("a stopped machine wakes for whoever may use it, and for nobody else", async () => {
  await as("bob").fs.writeTextFile("/home/bob/kept", "here");
  await vm.stop();
  assert.equal((await vm.getInfo()).state, "stopped");
  await assert.rejects(as("root").exec("id"), Errors.VmAccessDeniedError);
  assert.equal((await vm.getInfo()).state, "stopped");
  assert.equal((await as("bob").exec("id -un")).stdout.trim(), "bob");
  assert.equal((await vm.getInfo()).state, "running");
  // The minimal image has no disk.
  assert.equal(await as("bob").fs.exists("/home/bob/kept"), process.env.IMAGE === "debian");
});

test("a revoked token is dead", async () => {
  await identity.tokens.revoke({ tokenId });
  await assert.rejects(as("alice").exec("id"), Errors.UnauthorizedErrorError);
  await admin.identities.delete({ identityId: identity.identityId });
});
