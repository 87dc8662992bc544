-- Imports of products: the file in parts, a report of each line, and what became of each product.

CREATE TABLE product_imports (
    import_id         uuid PRIMARY KEY,
    file_name         text NOT NULL CHECK (length(file_name) BETWEEN 1 AND 200),
    format            text NOT NULL CHECK (format IN ('csv', 'jsonl')),
    status            text NOT NULL CHECK (status IN ('checking', 'checked', 'applying', 'applied', 'refused')),
    reason            text CHECK (length(reason) <= 1000),
    columns           text[] NOT NULL DEFAULT '{}',
    lines             integer NOT NULL CHECK (lines >= 0),
    checked_lines     integer NOT NULL DEFAULT 0 CHECK (checked_lines BETWEEN 0 AND lines),
    header_lines      integer NOT NULL DEFAULT 0 CHECK (header_lines >= 0),
    blank_lines       integer NOT NULL DEFAULT 0 CHECK (blank_lines >= 0),
    continued_lines   integer NOT NULL DEFAULT 0 CHECK (continued_lines >= 0),
    created           integer NOT NULL DEFAULT 0 CHECK (created >= 0),
    changed           integer NOT NULL DEFAULT 0 CHECK (changed >= 0),
    unchanged         integer NOT NULL DEFAULT 0 CHECK (unchanged >= 0),
    refused           integer NOT NULL DEFAULT 0 CHECK (refused >= 0),
    products          integer NOT NULL DEFAULT 0 CHECK (products >= 0),
    applied_products  integer NOT NULL DEFAULT 0 CHECK (applied_products >= 0),
    changed_meanwhile integer NOT NULL DEFAULT 0 CHECK (changed_meanwhile >= 0),
    failed_products   integer NOT NULL DEFAULT 0 CHECK (failed_products >= 0),
    applied_lines     integer NOT NULL DEFAULT 0 CHECK (applied_lines BETWEEN 0 AND lines),
    created_at        timestamptz NOT NULL,
    created_by        text NOT NULL,
    changed_at        timestamptz NOT NULL,
    applied_by        text,
    anyway            text CHECK (length(anyway) BETWEEN 1 AND 200),
    CHECK ((status = 'refused') = (reason IS NOT NULL)),
    CHECK ((status IN ('applying', 'applied')) = (applied_by IS NOT NULL)),
    CHECK (anyway IS NULL OR applied_by IS NOT NULL),
    CHECK (applied_products + changed_meanwhile + failed_products <= products),
    -- The report accounts for each line that was read.
    CHECK (header_lines + blank_lines + continued_lines + created + changed + unchanged + refused = checked_lines),
    CHECK (status IN ('checking', 'refused') OR checked_lines = lines)
);
CREATE INDEX product_imports_changed ON product_imports (changed_at);

CREATE TABLE product_import_parts (
    import_id  uuid NOT NULL REFERENCES product_imports ON DELETE CASCADE,
    first_line integer NOT NULL CHECK (first_line > 0),
    content    bytea NOT NULL,
    PRIMARY KEY (import_id, first_line)
);

CREATE TABLE product_import_lines (
    import_id  uuid NOT NULL REFERENCES product_imports ON DELETE CASCADE,
    line       integer NOT NULL CHECK (line > 0),
    outcome    text NOT NULL CHECK (outcome IN ('created', 'changed', 'unchanged', 'refused')),
    group_line integer NOT NULL CHECK (group_line > 0),
    product_id text,
    sku        text,
    columns    text[] NOT NULL DEFAULT '{}',
    faults     jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(faults) = 'array'),
    PRIMARY KEY (import_id, line)
);

CREATE TABLE product_import_items (
    import_id  uuid NOT NULL REFERENCES product_imports ON DELETE CASCADE,
    line       integer NOT NULL CHECK (line > 0),
    product_id text NOT NULL,
    digest     bytea CHECK (length(digest) = 32),
    result     text CHECK (result IN ('applied', 'changed_meanwhile', 'refused', 'failed')),
    detail     text CHECK (length(detail) <= 1000),
    PRIMARY KEY (import_id, line)
);

CREATE TABLE product_import_keys (
    import_id uuid NOT NULL REFERENCES product_imports ON DELETE CASCADE,
    key       text NOT NULL,
    line      integer NOT NULL CHECK (line > 0),
    PRIMARY KEY (import_id, key)
);

COMMENT ON TABLE product_imports IS 'Imports of products from files: a report first, then its application';
COMMENT ON COLUMN product_imports.reason IS 'Why the file as a whole cannot be read';
COMMENT ON COLUMN product_imports.columns IS 'Columns of a CSV file';
COMMENT ON COLUMN product_imports.checked_lines IS 'Lines that the report accounts for';
COMMENT ON COLUMN product_imports.continued_lines IS 'Lines within quoted values';
COMMENT ON COLUMN product_imports.applied_lines IS 'Lines whose products have their result';
COMMENT ON COLUMN product_imports.products IS 'Those to create or change; the next three say what became of them';
COMMENT ON COLUMN product_imports.changed_at IS 'Of the last step; kept for some weeks from then';
COMMENT ON COLUMN product_imports.anyway IS 'Why its products go on sale whatever their quality';
COMMENT ON TABLE product_import_parts IS 'Whole lines of the files, in UTF-8, from first_line on';
COMMENT ON TABLE product_import_lines IS 'Report: what becomes of each record';
COMMENT ON COLUMN product_import_lines.group_line IS 'First line of its product';
COMMENT ON COLUMN product_import_lines.columns IS 'Columns that change';
COMMENT ON COLUMN product_import_lines.faults IS 'Why it is refused: [{"column", "reason"}]';
COMMENT ON TABLE product_import_items IS 'Products to create or change, by their first line';
COMMENT ON COLUMN product_import_items.digest IS 'Digest of the product that the report saw; null if there was none';
COMMENT ON TABLE product_import_keys IS 'Products, SKUs and barcodes of a file while it is checked: each stands in it once';
