-- Whole tables of categories and attributes, for imports and exports of a taxonomy.

-- name: all_categories
SELECT {categories} FROM categories;

-- name: all_category_names
SELECT category_id AS id, language, name FROM category_names;

-- name: all_attributes
SELECT {attributes} FROM attributes;

-- name: all_attribute_names
SELECT attribute_id AS id, language, name, description FROM attribute_names;

-- name: all_choices
SELECT choice_id, attribute_id, position, status FROM choices ORDER BY attribute_id, position, choice_id;

-- name: all_choice_names
SELECT choice_id AS id, language, name FROM choice_names;

-- name: all_rules
SELECT category_id, attribute_id, rule FROM category_attributes;

-- name: put_categories
-- Parents first. `merged_into` follows when all are there.
INSERT INTO categories (category_id, parent_id, path, position, status, version, created_at, changed_at, changed_by)
SELECT category_id, parent_id, string_to_array(path, ' '), position, status, 1, $6, $6, $7
FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::text[])
    AS input (category_id, parent_id, path, position, status)
ON CONFLICT (category_id) DO UPDATE
SET parent_id = excluded.parent_id, path = excluded.path, position = excluded.position, status = excluded.status,
    merged_into = CASE excluded.status WHEN 'retired' THEN categories.merged_into END,
    version = categories.version + 1, changed_at = excluded.changed_at, changed_by = excluded.changed_by;

-- name: put_merged
UPDATE categories SET merged_into = input.merged_into
FROM unnest($1::text[], $2::text[]) AS input (category_id, merged_into)
WHERE categories.category_id = input.category_id;
