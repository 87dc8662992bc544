-- Freight by weight and list prices are terms of a sale as its own prices are: whoever changes them raises the generation
-- of the sales that are not closed, and once Redis has it, nobody buys on the old terms. A trigger does it, because the
-- catalog and the warehouses know nothing of sales.

CREATE INDEX sale_items_of_sku ON sale_items (sku);

CREATE FUNCTION raise_generations_of_skus(skus text[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- In the sequence of their ids, and before their items, as all others lock them.
    PERFORM FROM sales
    WHERE state <> 'closed' AND sale_id IN (SELECT sale_id FROM sale_items WHERE sku = ANY(skus))
    ORDER BY sale_id FOR UPDATE;
    WITH raised AS (
        UPDATE sales SET generation = generation + 1
        WHERE state <> 'closed' AND sale_id IN (SELECT sale_id FROM sale_items WHERE sku = ANY(skus))
        RETURNING sale_id, generation
    )
    UPDATE sale_items SET changed_generation = raised.generation
    FROM raised WHERE sale_items.sale_id = raised.sale_id AND sku = ANY(skus);
END $$;
COMMENT ON FUNCTION raise_generations_of_skus IS 'Has gateways read these products of all sales that are not closed again';

-- `changed` are the new rows of the statement, and `before` the old ones.
CREATE FUNCTION raise_generations_after_new_weight() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM raise_generations_of_skus(array_agg(sku)) FROM changed LEFT JOIN before USING (sku)
    WHERE changed.weight_g IS DISTINCT FROM before.weight_g HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE FUNCTION raise_generations_after_first_weight() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM raise_generations_of_skus(array_agg(sku)) FROM changed HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE FUNCTION raise_generations_after_new_list_price() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM raise_generations_of_skus(array_agg(sku)) FROM changed JOIN before USING (sku)
    WHERE changed.price_minor <> before.price_minor HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE TRIGGER raise_generations_insert AFTER INSERT ON product_logistics REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION raise_generations_after_first_weight();
CREATE TRIGGER raise_generations_update AFTER UPDATE ON product_logistics
    REFERENCING NEW TABLE AS changed OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION raise_generations_after_new_weight();
CREATE TRIGGER raise_generations AFTER UPDATE ON products REFERENCING NEW TABLE AS changed OLD TABLE AS before
    FOR EACH STATEMENT EXECUTE FUNCTION raise_generations_after_new_list_price();
