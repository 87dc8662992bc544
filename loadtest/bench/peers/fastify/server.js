// Fastify with one EVALSHA per request, which ioredis pipelines automatically: `node server.js PORT`.
//
// Tuned as for production: a JSON schema for body and reply, no logger. No token is checked.
'use strict'

const { createHash, randomUUID } = require('node:crypto')
const Redis = require('ioredis')
const fastify = require('fastify')({ logger: false })

const LIMIT = 1000000
const reserve = JSON.parse(process.env.BENCH_RESERVE)
const redis = new Redis(reserve.redis, { enableAutoPipelining: true })

const line = {
  type: 'object',
  required: ['sku', 'quantity'],
  properties: { sku: { type: 'string' }, quantity: { type: 'integer', minimum: 1 } }
}
const schema = {
  body: {
    type: 'object',
    required: ['sale_id', 'lines', 'ship_to'],
    properties: {
      sale_id: { type: 'string' },
      lines: { type: 'array', minItems: 1, maxItems: 1, items: line },
      ship_to: { type: 'array', items: { type: 'object' } }
    }
  },
  headers: {
    type: 'object',
    required: ['x-user', 'idempotency-key'],
    properties: { 'x-user': { type: 'string' }, 'idempotency-key': { type: 'string' } }
  },
  response: {
    '2xx': { type: 'object', properties: { order_id: { type: 'string' }, status: { type: 'string' } } }
  }
}

fastify.addContentTypeParser('application/json', { parseAs: 'buffer' }, (request, body, done) => {
  request.raw.body = body
  try {
    done(null, JSON.parse(body))
  } catch (error) {
    error.statusCode = 400
    done(error)
  }
})

fastify.post('/v1/orders', { schema }, async (request, reply) => {
  const user = request.headers['x-user']
  const { sku, quantity } = request.body.lines[0]
  const body = request.raw.body
  const id = randomUUID()
  const idBytes = Buffer.from(id.replaceAll('-', ''), 'hex')
  const lines = Buffer.alloc(28)
  lines.writeBigUInt64BE(BigInt(reserve.generation), 0)
  for (const [place, value] of [1, 1, quantity, 1, LIMIT].entries()) lines.writeUInt32BE(value, 8 + 4 * place)
  const length = Buffer.alloc(4)
  length.writeUInt32BE(body.length, 0)
  const payloads = Buffer.concat([idBytes, length, body])
  const record = Buffer.concat([idBytes, createHash('md5').update(body).digest(), Buffer.alloc(8)])
  const outcome = await redis.evalsha(
    reserve.sha, reserve.keys.length, ...reserve.keys, reserve.day, 1, 1, 1, lines, payloads, sku,
    `${user}\0${sku}`, `${user}\0${request.headers['idempotency-key']}`, user, record)
  reply.code(outcome[2] === 0 ? 202 : 409)
  return { order_id: id, status: outcome[2] === 0 ? 'accepted' : 'refused' }
})

fastify.listen({ host: '127.0.0.1', port: Number(process.argv[2]) })
