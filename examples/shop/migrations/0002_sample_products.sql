-- Goods of an island harbour.

WITH goods (sku, name, category, description, price_cents, hue, quantity) AS (VALUES
    ('TBL-MUG', 'Enamel mug', 'Table', 'Holds 350 ml, survives the rocks below the pier.', 1450, 204, 140),
    ('TBL-JUG', 'Stoneware jug', 'Table', 'Salt-glazed, one litre, pours without a drop.', 3900, 28, 45),
    ('TBL-BRD', 'Oyster board', 'Table', 'Driftwood oak with a groove for the brine.', 4650, 36, 38),
    ('TBL-NAP', 'Linen napkins', 'Table', 'A set of four in sea-washed linen.', 2800, 168, 90),
    ('TBL-KNF', 'Filleting knife', 'Table', 'Flexible blade of 18 cm, birch handle.', 5400, 210, 32),
    ('TBL-CND', 'Beeswax candles', 'Table', 'Six hand-dipped candles, eight hours each.', 1900, 44, 120),
    ('WEA-SWT', 'Fisherman''s sweater', 'Wear', 'Five-ply wool, knitted in the round.', 12900, 222, 40),
    ('WEA-JKT', 'Oilskin jacket', 'Wear', 'Waxed cotton; the seams are taped by hand.', 18900, 48, 25),
    ('WEA-CAP', 'Watch cap', 'Wear', 'Ribbed merino that fits under a hood.', 3200, 350, 110),
    ('WEA-SOX', 'Boot socks', 'Wear', 'Terry sole, reinforced heel, two pairs.', 2400, 140, 160),
    ('WEA-SCF', 'Harbour scarf', 'Wear', 'Lambswool, 180 cm, woven on the island.', 5900, 186, 55),
    ('WEA-BTS', 'Deck boots', 'Wear', 'Natural rubber with a sole that grips wet teak.', 9800, 160, 30),
    ('HOM-BLK', 'Wool blanket', 'Home', 'Undyed wool of the northern flock.', 11500, 24, 35),
    ('HOM-LMP', 'Storm lantern', 'Home', 'Burns twenty hours, goes out for no wind.', 6900, 12, 48),
    ('HOM-BSK', 'Willow basket', 'Home', 'Round, with a leather handle.', 4200, 32, 60),
    ('HOM-SOP', 'Seaweed soap', 'Home', 'Three bars with kelp and bergamot.', 1650, 152, 200),
    ('HOM-MAT', 'Rope doormat', 'Home', 'Knotted from retired mooring lines.', 5200, 200, 42),
    ('HOM-PRN', 'Tide print', 'Home', 'Letterpress chart of one year of tides.', 3600, 230, 75),
    ('FLD-BIN', 'Field glasses', 'Field', 'Eight by thirty-two, nitrogen filled.', 24900, 260, 18),
    ('FLD-CMP', 'Brass compass', 'Field', 'Liquid damped, with a folding sight.', 7400, 40, 28),
    ('FLD-NTB', 'Waterproof notebook', 'Field', 'Stone paper; takes a pencil in the rain.', 1550, 56, 180),
    ('FLD-FLK', 'Steel flask', 'Field', 'Keeps tea hot for a whole watch.', 3450, 190, 95),
    ('FLD-BAG', 'Dry bag', 'Field', 'Rolls shut, floats, twenty litres.', 4900, 8, 70),
    ('FLD-ROP', 'Heaving line', 'Field', 'Thirty metres with a monkey''s fist.', 3800, 20, 52)
), added AS (
    INSERT INTO products (sku, name, category, description, price_cents, hue)
    SELECT sku, name, category, description, price_cents, hue FROM goods
    RETURNING id, sku
)
INSERT INTO stock (product_id, quantity)
SELECT added.id, goods.quantity FROM added JOIN goods USING (sku);
