-- How the feed finds announcements among all events. An event that is none costs a comparison of
-- its name's beginning, and no entry. The names that the domain gives to announcements begin so.
-- On a large log the index takes a while, and appends wait: ingest spools meanwhile.
CREATE INDEX event_announced ON tallylight.event (slice, position)
 WHERE event_type LIKE 'Session%' OR event_type LIKE 'Recording%' OR event_type LIKE 'Quota%'
    OR event_type LIKE 'Cleanup%' OR event_type LIKE 'Endpoint%';
