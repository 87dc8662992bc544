-- When a sale was closed: its keys are looked for in Redis only for some days after.

-- A trigger sets it, whoever closes the sale: also a version of the software that does not know the column.
ALTER TABLE sales ADD COLUMN closed_at timestamptz;
UPDATE sales SET closed_at = now() WHERE state = 'closed';
ALTER TABLE sales ADD CONSTRAINT sales_closed_at CHECK ((state = 'closed') = (closed_at IS NOT NULL));

CREATE FUNCTION sale_closed_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.closed_at := CASE WHEN NEW.state = 'closed' THEN coalesce(NEW.closed_at, now()) END;
    RETURN NEW;
END $$;
CREATE TRIGGER sale_closed_at BEFORE INSERT OR UPDATE OF state ON sales
    FOR EACH ROW EXECUTE FUNCTION sale_closed_at();
