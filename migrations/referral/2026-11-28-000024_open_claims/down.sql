DROP INDEX commissions_open_by_sale;
