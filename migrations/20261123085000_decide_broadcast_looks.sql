-- A look at a broadcast is decided by its live stream, and by nobody else.

CREATE OR REPLACE FUNCTION tallylight.is_decided(kind text) RETURNS boolean
LANGUAGE sql IMMUTABLE
AS $$
  SELECT kind IN ('timer', 'forward', 'relay', 'create_live_stream', 'update_live_stream', 'clear_dvr', 'create_broadcast',
                  'activate_live_stream', 'deactivate_live_stream', 'set_broadcast_status', 'start_recording',
                  'stop_recording', 'delete_broadcast', 'observe_live_stream', 'observe_broadcast', 'list_videos',
                  'fetch_video', 'delete_live_stream', 'observe_quota', 'delete_recordings', 'probe_live_stream')
$$;
