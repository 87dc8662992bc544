-- Waiting rooms that open and close automatically: mode `automatic`, state `standby`.

ALTER TABLE waiting_rooms
    DROP CONSTRAINT waiting_rooms_mode_check,
    DROP CONSTRAINT waiting_rooms_state_check,
    DROP CONSTRAINT waiting_rooms_check7,
    ADD CONSTRAINT waiting_rooms_mode_check CHECK (mode IN ('off', 'on', 'automatic')),
    ADD CONSTRAINT waiting_rooms_state_check
        CHECK (state IN ('standby', 'waiting', 'drawing', 'serving', 'ended')),
    -- A room in standby has no list before it opens for the first time.
    ADD CONSTRAINT waiting_rooms_listed_check
        CHECK ((state = 'waiting') = (listed_at IS NULL) OR state IN ('standby', 'ended')),
    ADD COLUMN opened_at timestamptz;

COMMENT ON COLUMN waiting_rooms.mode IS 'off; on: orders need a ticket; automatic: only while the room is open, which it is in a rush';
COMMENT ON COLUMN waiting_rooms.opened_at IS 'When an automatic room opened the last time';
