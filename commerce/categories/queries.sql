-- Categories and attributes. Whoever changes them locks the row of `category_tree` first.

-- name: lock_tree
SELECT version FROM category_tree FOR UPDATE;

-- name: count_change
UPDATE category_tree SET version = version + 1;

-- name: read_tree_version
SELECT version FROM category_tree;

-- name: lock_category
-- A merge or retirement waits until the products are stored that are put into the category.
SELECT status, merged_into FROM categories WHERE category_id = $1 FOR SHARE;

-- name: lock_for_merge
-- Waits for products that are being put into it.
SELECT FROM categories WHERE category_id = $1 FOR UPDATE;

-- name: list_categories
SELECT {categories} FROM categories WHERE category_id = ANY ($1);

-- name: list_children
SELECT parent.category_id AS parent_id, child.position, child.category_id,
       EXISTS (SELECT FROM categories WHERE categories.parent_id = child.category_id AND categories.status = 'active')
           AS has_children
FROM unnest($1::text[]) AS parent (category_id)
JOIN categories child ON child.parent_id = parent.category_id
WHERE child.status = 'active'
ORDER BY child.parent_id, child.position, child.category_id;

-- name: list_roots
SELECT '' AS parent_id, position, category_id,
       EXISTS (SELECT FROM categories child WHERE child.parent_id = root.category_id AND child.status = 'active')
           AS has_children
FROM categories root
WHERE parent_id IS NULL AND status = 'active'
ORDER BY position, category_id;

-- name: list_category_names
SELECT category_id AS id, jsonb_object_agg(language, name)::text AS names
FROM category_names WHERE category_id = ANY ($1) GROUP BY category_id;

-- name: list_own_rules
SELECT category_id, attribute_id, rule FROM category_attributes WHERE category_id = ANY ($1)
ORDER BY category_id, attribute_id;

-- name: list_rules
-- Of the rules of a category and its ancestors for an attribute the nearest counts.
SELECT DISTINCT ON (category.category_id, rule.attribute_id)
       category.category_id, rule.attribute_id, rule.rule, rule.category_id AS defined_in
FROM unnest($1::text[]) AS wanted (category_id)
JOIN categories category ON category.category_id = wanted.category_id
CROSS JOIN LATERAL unnest(category.path) WITH ORDINALITY AS ancestor (category_id, depth)
JOIN category_attributes rule ON rule.category_id = ancestor.category_id
ORDER BY category.category_id, rule.attribute_id, ancestor.depth DESC;

-- name: list_attributes
SELECT {attributes} FROM attributes WHERE attribute_id = ANY ($1);

-- name: list_attributes_after
SELECT attribute_id, kind, unit, choices_of, version,
       (SELECT count(*) FROM choices
        WHERE choices.attribute_id = coalesce(attributes.choices_of, attributes.attribute_id)
          AND choices.status = 'active') AS choice_count
FROM attributes WHERE attribute_id > $1 ORDER BY attribute_id LIMIT $2;

-- name: list_attribute_names
SELECT attribute_id AS id, jsonb_object_agg(language, name)::text AS names,
       coalesce(jsonb_object_agg(language, description) FILTER (WHERE description IS NOT NULL), '{}')::text AS descriptions
FROM attribute_names WHERE attribute_id = ANY ($1) GROUP BY attribute_id;

-- name: list_choices
SELECT choices.attribute_id, choices.choice_id, choices.status,
       coalesce((SELECT jsonb_object_agg(language, name) FROM choice_names
                 WHERE choice_names.choice_id = choices.choice_id), '{}')::text AS names
FROM choices WHERE choices.attribute_id = ANY ($1)
ORDER BY choices.attribute_id, choices.position, choices.choice_id;

-- name: list_choice_ids
SELECT attribute_id, choice_id FROM choices WHERE attribute_id = ANY ($1) AND status = 'active';

-- name: find_choice_owners
SELECT choice_id, attribute_id FROM choices WHERE choice_id = ANY ($1);

-- name: is_used_for_choices
SELECT EXISTS (SELECT FROM attributes WHERE choices_of = $1);

-- name: count_categories
SELECT count(*) FROM categories;

-- name: count_attributes
SELECT count(*) FROM attributes;

-- name: count_children
-- With the position that a further child gets.
SELECT count(*) AS children, coalesce(max(position) + 1, 0) AS next_position FROM categories
WHERE parent_id IS NOT DISTINCT FROM $1;

-- name: measure_subtree
-- The number of levels below a category with its own, and whether a child of it is active.
SELECT max(cardinality(path)) - min(cardinality(path)) + 1 AS levels,
       bool_or(parent_id = $1 AND status = 'active') IS TRUE AS has_active_children
FROM categories WHERE path @> ARRAY[$1::text];

-- name: count_inherited
-- The attributes of the category in the subtree that has most of them.
SELECT coalesce(max(attributes), 0) FROM (
    SELECT count(DISTINCT rule.attribute_id) AS attributes
    FROM categories category JOIN category_attributes rule ON rule.category_id = ANY (category.path)
    WHERE category.path @> ARRAY[$1::text] GROUP BY category.category_id) AS counts;

-- name: insert_category
INSERT INTO categories (category_id, parent_id, path, position, status, version, created_at, changed_at, changed_by)
VALUES ($1, $2, $3, $4, 'active', 1, $5, $5, $6);

-- name: touch_category
UPDATE categories SET version = version + 1, changed_at = $2, changed_by = $3 WHERE category_id = $1;

-- name: set_lifecycle
UPDATE categories SET status = $2, merged_into = $3, version = version + 1, changed_at = $4, changed_by = $5
WHERE category_id = $1;

-- name: redirect_merged
-- Those that were merged into a category before follow it.
UPDATE categories SET merged_into = $2 WHERE merged_into = $1;

-- name: move_subtree
-- The paths below a category follow it: $3 is the path of its parent, $4 its own level.
UPDATE categories SET path = $3::text[] || path[$4:],
    parent_id = CASE WHEN category_id = $1 THEN $2 ELSE parent_id END,
    position = CASE WHEN category_id = $1 THEN $5 ELSE position END,
    version = version + (category_id = $1)::integer,
    changed_at = CASE WHEN category_id = $1 THEN $6 ELSE changed_at END,
    changed_by = CASE WHEN category_id = $1 THEN $7 ELSE changed_by END
WHERE path @> ARRAY[$1::text];

-- name: list_child_ids
SELECT category_id FROM categories WHERE parent_id = $1 ORDER BY position, category_id;

-- name: delete_category_names
DELETE FROM category_names WHERE category_id = $1 AND NOT language = ANY ($2);

-- name: put_category_names
INSERT INTO category_names (category_id, language, name)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
ON CONFLICT (category_id, language) DO UPDATE SET name = excluded.name;

-- name: delete_rules
DELETE FROM category_attributes rule USING unnest($1::text[], $2::text[]) AS old (category_id, attribute_id)
WHERE rule.category_id = old.category_id AND rule.attribute_id = old.attribute_id;

-- name: put_rules
INSERT INTO category_attributes (category_id, attribute_id, rule)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
ON CONFLICT (category_id, attribute_id) DO UPDATE SET rule = excluded.rule;

-- name: put_attributes
-- The kind of one that exists stays.
INSERT INTO attributes (attribute_id, kind, unit, choices_of, version, created_at, changed_at, changed_by)
SELECT attribute_id, kind, unit, choices_of, 1, $5, $5, $6
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS input (attribute_id, kind, unit, choices_of)
ON CONFLICT (attribute_id) DO UPDATE
SET unit = excluded.unit, choices_of = excluded.choices_of, version = attributes.version + 1,
    changed_at = excluded.changed_at, changed_by = excluded.changed_by;

-- name: delete_attribute_names
DELETE FROM attribute_names WHERE attribute_id = $1 AND NOT language = ANY ($2);

-- name: put_attribute_names
INSERT INTO attribute_names (attribute_id, language, name, description)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])
ON CONFLICT (attribute_id, language) DO UPDATE
SET name = excluded.name, description = coalesce(excluded.description, attribute_names.description);

-- name: put_choices
INSERT INTO choices (choice_id, attribute_id, position, status)
SELECT * FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[])
ON CONFLICT (choice_id) DO UPDATE SET position = excluded.position, status = excluded.status;

-- name: retire_choices
UPDATE choices SET status = 'retired' WHERE attribute_id = $1 AND NOT choice_id = ANY ($2) AND status = 'active';

-- name: delete_choice_names
DELETE FROM choice_names USING choices
WHERE choice_names.choice_id = choices.choice_id AND choices.attribute_id = $1 AND choices.status = 'active'
  AND NOT EXISTS (SELECT FROM unnest($2::text[], $3::text[]) AS kept (choice_id, language)
                  WHERE kept.choice_id = choice_names.choice_id AND kept.language = choice_names.language);

-- name: put_choice_names
INSERT INTO choice_names (choice_id, language, name)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
ON CONFLICT (choice_id, language) DO UPDATE SET name = excluded.name;

-- name: insert_changes
INSERT INTO category_changes (at, kind, category_id, attribute_id, details, actor, reason)
SELECT $1, kind, category_id, attribute_id, details::jsonb, $6, $7
FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) AS input (kind, category_id, attribute_id, details);

-- name: list_changes
SELECT {category_changes} FROM category_changes
WHERE change_no < $1 ORDER BY change_no DESC LIMIT $2;

-- name: list_changes_of_category
SELECT {category_changes} FROM category_changes
WHERE category_id = $3 AND change_no < $1 ORDER BY change_no DESC LIMIT $2;

-- name: list_changes_of_attribute
SELECT {category_changes} FROM category_changes
WHERE attribute_id = $3 AND change_no < $1 ORDER BY change_no DESC LIMIT $2;
