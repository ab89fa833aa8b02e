// Enqueues jobs from Node, in the service's own transaction: order and jobs become true together.
//
//     npm install
//     DATABASE_URL=postgres://shop:...@host/tallylight node enqueue.mjs 7
//
// The role needs `GRANT tallylight_producer TO shop`. What is called are the SQL functions that
// docs/producers.md describes; the jobs are calls of the shop's own services, which Tallylight makes
// until they are answered (docs/calls.md: `http_call.allow` of the workers has to list the address).
// Prints what became of each job as one line of JSON.

import pg from "pg";

// Arguments of an `http_call`.
const call = (path, body) => ({ method: "POST", url: `https://shop.example${path}`, body });

async function placeOrder(db, number) {
  await db.query("BEGIN");
  try {
    await db.query("INSERT INTO product.orders (number) VALUES ($1)", [number]);
    const { rows: [job] } = await db.query(
      "SELECT id, is_new FROM tallylight.enqueue_job($1, $2, $3)",
      ["http_call", call("/mails", { order: number }), { key: `order-${number}` }],
    );
    const items = [1, 2].map((item) => ({ kind: "http_call", args: call("/packs", { order: number, item }) }));
    // An array would be taken for an array of PostgreSQL, so it goes as text.
    const { rows: batch } = await db.query(
      "SELECT id FROM tallylight.enqueue_many($1) ORDER BY n",
      [JSON.stringify(items)],
    );
    await db.query("COMMIT");
    return { job: job.id, is_new: job.is_new, batch: batch.map((row) => row.id) };
  } catch (error) {
    await db.query("ROLLBACK");
    throw error;
  }
}

// A refusal says what is wrong; SQLSTATE 22023.
async function refused(db) {
  try {
    await db.query("SELECT tallylight.enqueue('HTTP call')");
  } catch (error) {
    if (error.code === "22023") return error.message;
    throw error;
  }
  throw new Error("it was accepted");
}

const db = new pg.Client({ connectionString: process.env.DATABASE_URL });
await db.connect();
try {
  const told = await placeOrder(db, Number(process.argv[2]));
  console.log(JSON.stringify({ ...told, refused: await refused(db) }));
} finally {
  await db.end();
}
