// Streams a turn, and goes on after every cut with the events after the last one that it has. Says "begun" when half of
// the text is there, and prints at the end what it has seen.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI({ baseURL: process.env.GATEWAY_URL, apiKey: process.env.GATEWAY_TOKEN });
const seen = [];
let id = null, last = null, cuts = 0, text = '';

async function follow(stream) {
  for await (const event of stream) {
    if (event.type === 'shutdown') {
      assert.equal(event.sequence_number, last);
      continue;
    }
    if (event.type === 'waiting') continue;
    seen.push(event);
    last = event.sequence_number;
    id ??= event.response.id;
    if (event.type !== 'response.output_text.delta') continue;
    const before = text.includes('halfway');
    text += event.delta;
    if (!before && text.includes('halfway')) console.log('begun');
  }
}

let stream = await client.responses.create({ model: process.env.MODEL, input: 'x', stream: true });
for (;;) {
  try {
    await follow(stream);
    break;
  } catch (e) {
    if (!(e instanceof OpenAI.APIError)) throw e;
    assert.equal(e.code, 'gateway_restarting', `${e}`);
    cuts++;
    stream = await client.responses.retrieve(id, { stream: true, starting_after: last });
  }
}

const whole = [];
for await (const event of await client.responses.retrieve(id, { stream: true })) whole.push(event);
assert.deepEqual(seen.map((e) => e.sequence_number), [...seen.keys()], 'events are missing, or came twice');
assert.deepEqual(seen, whole);
const gathered = await client.responses.stream({ response_id: id }).finalResponse();
assert.equal(gathered.status, 'completed');
console.log(JSON.stringify({ events: seen.length, cuts, text: gathered.output_text }));
