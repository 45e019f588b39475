// Every call that the gateway serves, by OpenAI's client as it is. Ends with 0 when all of them did what they should.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI({ baseURL: process.env.GATEWAY_URL, apiKey: process.env.GATEWAY_TOKEN, maxRetries: 0 });
const ask = (model, input, more = {}) => client.responses.create({ model, input, ...more });

async function all(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

async function refused(call, status, kind, code, param) {
  const e = await call().then(() => assert.fail('it was not refused'), (e) => e);
  assert(e instanceof kind, `${e}`);
  assert.deepEqual([e.status, e.code, e.param ?? null], [status, code, param ?? null]);
  assert.match(e.message, /Try: /);
}

const told = [{ role: 'user', content: 'hello there' }];
const checks = {
  async models() {
    const listed = await all(await client.models.list());
    assert.deepEqual(listed.map((m) => m.id).sort(), ['echo', 'endpoint', 'gated']);
    assert.equal((await client.models.retrieve('echo')).id, 'echo');
  },

  async chat() {
    const got = await client.chat.completions.create({ model: 'endpoint', messages: told });
    assert.equal(got.choices[0].message.content, 'an answer');
    assert.equal(got.choices[0].finish_reason, 'stop');
    assert.deepEqual(got.usage, { prompt_tokens: 7, completion_tokens: 3, total_tokens: 10 });
  },

  async 'chat, streamed with usage'() {
    const chunks = await all(await client.chat.completions.create({
      model: 'endpoint', messages: told, stream: true, stream_options: { include_usage: true },
    }));
    assert.equal(chunks.map((c) => c.choices[0]?.delta.content ?? '').join(''), 'an answer');
    assert.equal(new Set(chunks.map((c) => c.id)).size, 1);
    const last = chunks.pop();
    assert.deepEqual([last.choices, last.usage], [[], { prompt_tokens: 7, completion_tokens: 3, total_tokens: 10 }]);
    assert.equal(chunks.at(-1).choices[0].finish_reason, 'stop');
    assert(chunks.every((c) => !c.usage));
  },

  async 'chat, gathered by the client'() {
    const runner = client.chat.completions.stream({ model: 'endpoint', messages: told, stream_options: { include_usage: true } });
    assert.equal(await runner.finalContent(), 'an answer');
    assert.equal((await runner.totalUsage()).total_tokens, 10);
  },

  async response() {
    const got = await ask('echo', 'hello there', { instructions: 'be brief', metadata: { k: 'v' } });
    assert.deepEqual([got.status, got.output_text, got.instructions, got.metadata], ['completed', 'hello there', 'be brief', { k: 'v' }]);
    assert.deepEqual(await client.responses.retrieve(got.id), got);
    const items = await all(await client.responses.inputItems.list(got.id));
    assert.equal(items[0].content[0].text, 'hello there');
    const billed = await ask('endpoint', 'hello');
    assert.deepEqual([billed.usage.input_tokens, billed.usage.output_tokens, billed.usage.total_tokens], [7, 3, 10]);
  },

  async 'response, streamed'() {
    const events = await all(await ask('echo', 'hello there', { stream: true }));
    assert.deepEqual(events.map((e) => e.sequence_number), [...events.keys()]);
    assert.equal(events.filter((e) => e.type === 'response.output_text.delta').map((e) => e.delta).join(''), 'hello there');
    assert.equal(events.at(-1).type, 'response.completed');
    const id = events[0].response.id;
    assert.deepEqual((await client.responses.retrieve(id)).output, events.at(-1).response.output);
    for (const after of events.keys()) {
      const tail = await all(await client.responses.retrieve(id, { stream: true, starting_after: after }));
      assert.deepEqual(tail, events.slice(after + 1));
    }
  },

  async 'response, gathered by the client'() {
    const runner = client.responses.stream({ model: 'echo', input: 'hello there' });
    const got = await runner.finalResponse();
    assert.equal(got.output_text, 'hello there');
    const late = client.responses.stream({ response_id: got.id, starting_after: 2 });
    assert.equal((await all(late))[0].sequence_number, 3);
    assert.equal((await late.finalResponse()).output_text, 'hello there');
  },

  async 'response, in the background'() {
    let got = await ask('echo', 'hello there', { background: true });
    assert(['queued', 'in_progress', 'completed'].includes(got.status), got.status);
    assert.equal(got.background, true);
    for (let polls = 0; got.status !== 'completed'; polls++) {
      assert(polls < 1000, got.status);
      await new Promise((next) => setTimeout(next, 20));
      got = await client.responses.retrieve(got.id);
    }
    assert.equal(got.output_text, 'hello there');
  },

  async 'response, cancelled and deleted'() {
    const got = await ask('gated', 'wait', { background: true });
    await refused(() => client.responses.delete(got.id), 409, OpenAI.ConflictError, 'conflict');
    assert.equal((await client.responses.cancel(got.id)).status, 'cancelled');
    assert.equal((await client.responses.retrieve(got.id)).status, 'cancelled');
    await client.responses.delete(got.id);
    await refused(() => client.responses.retrieve(got.id), 404, OpenAI.NotFoundError, 'not_found', 'id');
  },

  async 'a conversation'() {
    const first = await ask('echo', 'one');
    const second = await ask('echo', 'two', { previous_response_id: first.id });
    assert.deepEqual([second.previous_response_id, second.conversation.id], [first.id, first.conversation.id]);
    await refused(() => ask('echo', 'x', { previous_response_id: 'nope' }), 404, OpenAI.NotFoundError, 'previous_response_not_found', 'previous_response_id');
  },

  async errors() {
    await refused(() => ask('nobody', 'x'), 404, OpenAI.NotFoundError, 'model_not_found', 'model');
    await refused(() => ask('echo', 'x', { temperature: 'hot' }), 400, OpenAI.BadRequestError, 'invalid_value', 'temperature');
    await refused(() => client.chat.completions.create({ model: 'echo', messages: told, n: 2 }), 400, OpenAI.BadRequestError, 'unsupported_parameter', 'n');
    await refused(() => client.chat.completions.create({ model: 'echo' }), 400, OpenAI.BadRequestError, 'missing_parameter', 'messages');
    const stranger = new OpenAI({ baseURL: client.baseURL, apiKey: 'wrong', maxRetries: 0 });
    await refused(() => stranger.models.list(), 401, OpenAI.AuthenticationError, 'invalid_api_key');
  },

  async 'an idempotency key'() {
    const once = { headers: { 'Idempotency-Key': 'k', 'X-Session-Id': 's' } };
    const [a, b] = [await client.responses.create({ model: 'echo', input: 'x' }, once), await client.responses.create({ model: 'echo', input: 'x' }, once)];
    assert.equal(a.id, b.id);
    await refused(() => client.responses.create({ model: 'echo', input: 'y' }, once), 409, OpenAI.ConflictError, 'idempotency_key_reused');
  },
};

for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok: ${name}`);
  } catch (e) {
    console.log(`FAILED: ${name}\n${e.stack}`);
    process.exitCode = 1;
  }
}
