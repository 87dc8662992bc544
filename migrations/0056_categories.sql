-- Categories of the catalog: a tree, the attributes that products of a category have, and the choices of attributes.

-- merged_into says where the products of a retired category went.
CREATE TABLE categories (
    category_id text PRIMARY KEY CHECK (category_id ~ '^[a-z0-9][a-z0-9-]{0,63}$'),
    parent_id   text REFERENCES categories,
    path        text[] NOT NULL CHECK (cardinality(path) BETWEEN 1 AND 20),
    position    integer NOT NULL CHECK (position >= 0),
    status      text NOT NULL CHECK (status IN ('active', 'retired')),
    merged_into text REFERENCES categories,
    version     integer NOT NULL CHECK (version > 0),
    created_at  timestamptz NOT NULL,
    changed_at  timestamptz NOT NULL,
    changed_by  text NOT NULL CHECK (length(changed_by) BETWEEN 1 AND 100),
    CHECK (path[cardinality(path)] = category_id),
    CHECK (parent_id IS NOT DISTINCT FROM path[cardinality(path) - 1]),
    CHECK (array_position(path, category_id) = cardinality(path)),
    CHECK (merged_into IS NULL OR (status = 'retired' AND merged_into <> category_id))
);
CREATE INDEX categories_by_path ON categories USING gin (path);
CREATE INDEX categories_of_parent ON categories (parent_id, position, category_id);
CREATE INDEX categories_merged ON categories (merged_into) WHERE merged_into IS NOT NULL;

CREATE TABLE category_names (
    category_id text NOT NULL REFERENCES categories,
    language    text NOT NULL CHECK (language ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$'),
    name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    PRIMARY KEY (category_id, language)
);

CREATE TABLE attributes (
    attribute_id text PRIMARY KEY CHECK (attribute_id ~ '^[a-z0-9][a-z0-9_/+#.-]{0,99}$'),
    kind         text NOT NULL CHECK (kind IN ('choice', 'choices', 'text', 'number', 'boolean', 'date')),
    unit         text CHECK (length(unit) BETWEEN 1 AND 20),
    choices_of   text REFERENCES attributes,
    version      integer NOT NULL CHECK (version > 0),
    created_at   timestamptz NOT NULL,
    changed_at   timestamptz NOT NULL,
    changed_by   text NOT NULL CHECK (length(changed_by) BETWEEN 1 AND 100),
    CHECK (unit IS NULL OR kind = 'number'),
    CHECK (choices_of IS NULL OR (kind IN ('choice', 'choices') AND choices_of <> attribute_id))
);
CREATE INDEX attributes_with_choices_of ON attributes (choices_of) WHERE choices_of IS NOT NULL;

CREATE TABLE attribute_names (
    attribute_id text NOT NULL REFERENCES attributes,
    language     text NOT NULL CHECK (language ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$'),
    name         text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    description  text CHECK (length(description) BETWEEN 1 AND 500),
    PRIMARY KEY (attribute_id, language)
);

CREATE TABLE choices (
    choice_id    text PRIMARY KEY CHECK (choice_id ~ '^[a-z0-9][a-z0-9_/+#.-]{0,149}$'),
    attribute_id text NOT NULL REFERENCES attributes,
    position     integer NOT NULL CHECK (position >= 0),
    status       text NOT NULL CHECK (status IN ('active', 'retired'))
);
CREATE INDEX choices_of_attribute ON choices (attribute_id, position, choice_id);

CREATE TABLE choice_names (
    choice_id text NOT NULL REFERENCES choices,
    language  text NOT NULL CHECK (language ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$'),
    name      text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    PRIMARY KEY (choice_id, language)
);

-- A category has the attributes of its ancestors, too; the rule that stands nearest to it counts.
CREATE TABLE category_attributes (
    category_id  text NOT NULL REFERENCES categories,
    attribute_id text NOT NULL REFERENCES attributes,
    rule         text NOT NULL CHECK (rule IN ('required', 'optional', 'excluded')),
    PRIMARY KEY (category_id, attribute_id)
);
CREATE INDEX category_attributes_of_attribute ON category_attributes (attribute_id);

-- The lock of this row puts changes of the tree one after the other, so that two of them cannot make a loop.
CREATE TABLE category_tree (
    is_only_row boolean PRIMARY KEY CHECK (is_only_row),
    version     bigint NOT NULL
);
INSERT INTO category_tree VALUES (true, 0);

CREATE TABLE category_changes (
    change_no    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('imported', 'created', 'changed', 'moved', 'merged', 'retired', 'restored')),
    category_id  text REFERENCES categories,
    attribute_id text REFERENCES attributes,
    details      jsonb NOT NULL CHECK (jsonb_typeof(details) = 'object'),
    actor        text NOT NULL CHECK (length(actor) BETWEEN 1 AND 100),
    reason       text NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
    CHECK (num_nonnulls(category_id, attribute_id) <= 1)
);
CREATE INDEX category_changes_of_category ON category_changes (category_id, change_no) WHERE category_id IS NOT NULL;
CREATE INDEX category_changes_of_attribute ON category_changes (attribute_id, change_no) WHERE attribute_id IS NOT NULL;

CREATE FUNCTION keep_category_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'change % of the categories cannot be changed: it is the record', OLD.change_no
        USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER keep_category_change BEFORE UPDATE OR DELETE ON category_changes
    FOR EACH ROW EXECUTE FUNCTION keep_category_change();

COMMENT ON TABLE categories IS 'Categories of products, a tree; gateways keep it in memory';
COMMENT ON COLUMN categories.path IS 'Ids from the root; the last one is its own';
COMMENT ON COLUMN categories.position IS 'Place among the children of its parent';
COMMENT ON COLUMN categories.status IS 'active, retired: products keep a retired category, no product is put into it';
COMMENT ON COLUMN categories.merged_into IS 'The category that has its products now';
COMMENT ON COLUMN categories.version IS 'Counts its changes; a change may name the version it was made from';
COMMENT ON TABLE category_names IS 'Names of categories by language (BCP 47)';
COMMENT ON TABLE attributes IS 'Attributes that products have by their category';
COMMENT ON COLUMN attributes.kind IS 'choice: one of its choices; choices: several; text, number, boolean, date';
COMMENT ON COLUMN attributes.unit IS 'Unit of the numbers';
COMMENT ON COLUMN attributes.choices_of IS 'The attribute whose choices it has, if it has none of its own';
COMMENT ON TABLE attribute_names IS 'Names of attributes by language (BCP 47)';
COMMENT ON TABLE choices IS 'Values that an attribute allows';
COMMENT ON COLUMN choices.position IS 'Place among the choices of its attribute';
COMMENT ON COLUMN choices.status IS 'active, retired: products keep a retired choice, no product gets it';
COMMENT ON TABLE choice_names IS 'Names of choices by language (BCP 47)';
COMMENT ON TABLE category_attributes IS 'Rules of a category for attributes; descendants inherit them, the nearest counts';
COMMENT ON COLUMN category_attributes.rule IS 'required, optional, excluded: an inherited attribute that products here do not have';
COMMENT ON TABLE category_tree IS 'One row: counts the changes of categories and attributes. Its lock orders them';
COMMENT ON TABLE category_changes IS 'What was changed in categories and attributes, by whom, when and why; never changed';
COMMENT ON COLUMN category_changes.details IS 'The state before and after, or what an import did';
