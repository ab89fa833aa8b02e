-- Appends join sets, whatever the transaction around them prefers: those that find their rows by keys
-- had to take that back before each append, by a call of its own.

ALTER FUNCTION tallylight.append_batch(smallint, uuid, uuid[], text[], text[], smallint[], uuid[],
  timestamptz[], uuid[], uuid[], text[], bytea[])
  SET enable_hashjoin = on;
ALTER FUNCTION tallylight.append_batch(smallint, uuid, uuid[], text[], text[], smallint[], uuid[],
  timestamptz[], uuid[], uuid[], text[], bytea[])
  SET enable_seqscan = on;
ALTER FUNCTION tallylight.append_batches(smallint[], uuid[], int[], uuid[], text[], text[], smallint[], uuid[],
  timestamptz[], uuid[], uuid[], text[], bytea[])
  SET enable_hashjoin = on;
ALTER FUNCTION tallylight.append_batches(smallint[], uuid[], int[], uuid[], text[], text[], smallint[], uuid[],
  timestamptz[], uuid[], uuid[], text[], bytea[])
  SET enable_seqscan = on;
