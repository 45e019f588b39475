// The clients and the workers of BullMQ. Prints how many jobs were completed in the window, and how long it was.
import { Queue, Worker } from 'bullmq';
import { setTimeout as sleep } from 'node:timers/promises';

const [path, clients, input, slots, warm, window] = process.argv.slice(2);
const connection = { path, maxRetriesPerRequest: null };
const queue = new Queue('echo', { connection });
const worker = new Worker('echo', async (job) => job.data.input, { connection, concurrency: Number(slots) });
for (const part of [queue, worker]) {
  part.on('error', (err) => { console.error(err); process.exit(1); });
}
await Promise.all([queue.waitUntilReady(), worker.waitUntilReady()]);

// How a client is told, by its session: a client has one job at a time.
const tell = new Map();
worker.on('completed', (job) => tell.get(job.data.session)());

let completed = 0;
let enough = false;
async function client(session) {
  while (!enough) {
    const told = new Promise((resolve) => tell.set(session, resolve));
    // What completed jobs leave behind would only be weight.
    await queue.add('echo', { session, input }, { removeOnComplete: true });
    await told;
    completed++;
  }
}
const all = Array.from({ length: Number(clients) }, (_, i) => client(`session-${i}`));

await sleep(Number(warm));
const before = completed;
const began = performance.now();
await sleep(Number(window));
const result = { completed: completed - before, seconds: (performance.now() - began) / 1000 };
enough = true;
// Who starts this ends it when a client is never told.
await Promise.all(all);
await worker.close();
await queue.close();
console.log(JSON.stringify(result));
