-- Folded states and rows are updated far more often than they are made: room on each page keeps the
-- new version of a row beside the old one, and then no index is written.

ALTER TABLE tallylight.subject_state SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE tallylight.session SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE tallylight.live_stream SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE tallylight.session_request SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE tallylight.video SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
-- States are compressed at every event: lz4 costs a fraction of the default.
ALTER TABLE tallylight.subject_state ALTER COLUMN state SET COMPRESSION lz4;
ALTER TABLE tallylight.session ALTER COLUMN detail SET COMPRESSION lz4;
