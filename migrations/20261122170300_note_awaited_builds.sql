-- An event that is set aside for its version needs nobody's hand: the first worker that knows the
-- version asks for its retry.
ALTER TABLE tallylight.parked ADD COLUMN awaits_build boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN tallylight.parked.awaits_build IS 'Its version was newer than the build that met it';
